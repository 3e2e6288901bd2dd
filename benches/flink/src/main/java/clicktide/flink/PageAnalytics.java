package clicktide.flink;

import java.nio.charset.StandardCharsets;
import org.apache.kafka.clients.producer.ProducerRecord;

/** A result, as the schema of the results topic has it. */
record PageAnalytics(
        String page,
        long startMs,
        long endMs,
        long views,
        long users,
        long clicks,
        long purchases,
        double engagementRate,
        double bounceRate,
        double sessionDurationS) {

    /** The longest that all fields but the page are, with the length of the page: seven numbers of up to ten bytes, three of eight. */
    private static final int MAX_WITHOUT_PAGE = 7 * 10 + 3 * 8;

    /** The record for Kafka: the page's name as the key, the bare Avro body as the value. */
    ProducerRecord<byte[], byte[]> toRecord(String topic) {
        byte[] key = page.getBytes(StandardCharsets.UTF_8);
        AvroWriter out = new AvroWriter(key.length + MAX_WITHOUT_PAGE);
        out.writeLong(key.length);
        out.writeBytes(key);
        out.writeLong(startMs);
        out.writeLong(endMs);
        out.writeLong(views);
        out.writeLong(users);
        out.writeLong(clicks);
        out.writeLong(purchases);
        out.writeDouble(engagementRate);
        out.writeDouble(bounceRate);
        out.writeDouble(sessionDurationS);
        return new ProducerRecord<>(topic, key, out.toBytes());
    }

    /** Reads the bare Avro body. */
    static PageAnalytics read(byte[] body) {
        AvroCursor in = new AvroCursor();
        in.open(body);
        return new PageAnalytics(
                in.readString(),
                in.readLong(),
                in.readLong(),
                in.readLong(),
                in.readLong(),
                in.readLong(),
                in.readLong(),
                in.readDouble(),
                in.readDouble(),
                in.readDouble());
    }
}
