package clicktide.flink;

import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.kafka.clients.producer.ProducerRecord;

/** Writes results with all metrics to Kafka. */
final class PageWindowWriter implements KafkaRecordSerializationSchema<PageWindow> {
    private final String topic;
    private final long sizeMs;

    PageWindowWriter(String topic, long sizeMs) {
        this.topic = topic;
        this.sizeMs = sizeMs;
    }

    @Override
    public ProducerRecord<byte[], byte[]> serialize(PageWindow window, KafkaSinkContext context, Long timestamp) {
        double sessions = window.sessions;
        return new PageAnalytics(
                window.page,
                window.endMs - sizeMs,
                window.endMs,
                window.views,
                window.users.size(),
                window.clicks,
                window.purchases,
                window.engaged / sessions,
                window.bounced / sessions,
                window.durationMs / sessions / 1_000.0)
            .toRecord(topic);
    }
}
