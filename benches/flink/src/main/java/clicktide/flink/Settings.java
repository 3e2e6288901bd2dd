package clicktide.flink;

import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.KafkaSourceBuilder;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** What a job is run with, and all of its tuning that is not in the operators. */
record Settings(
        String variant,
        String brokers,
        String events,
        String results,
        long sizeMs,
        long slideMs,
        long boundMs,
        long checkpointMs,
        String checkpoints,
        int parallelism,
        boolean bounded) {

    private static final String[] NAMES = {
        "variant", "brokers", "events", "results", "size-ms", "slide-ms", "bound-ms", "checkpoint-ms", "checkpoints",
        "parallelism", "bounded"
    };

    /** Reads {@code --name=value} of every setting. */
    static Settings parse(String[] arguments) {
        Map<String, String> values = new HashMap<>();
        for (String argument : arguments) {
            int equals = argument.indexOf('=');
            if (!argument.startsWith("--") || equals < 0) {
                throw new IllegalArgumentException(argument + ": must be --NAME=VALUE");
            }
            values.put(argument.substring(2, equals), argument.substring(equals + 1));
        }
        for (String name : NAMES) {
            if (!values.containsKey(name)) {
                throw new IllegalArgumentException("--" + name + "=… is missing");
            }
        }
        Settings settings = new Settings(
                values.get("variant"),
                values.get("brokers"),
                values.get("events"),
                values.get("results"),
                Long.parseLong(values.get("size-ms")),
                Long.parseLong(values.get("slide-ms")),
                Long.parseLong(values.get("bound-ms")),
                Long.parseLong(values.get("checkpoint-ms")),
                values.get("checkpoints"),
                Integer.parseInt(values.get("parallelism")),
                Boolean.parseBoolean(values.get("bounded")));
        if (settings.slideMs <= 0 || settings.sizeMs % settings.slideMs != 0) {
            throw new IllegalArgumentException("--size-ms must be a multiple of --slide-ms");
        }
        return settings;
    }

    StreamExecutionEnvironment environment() {
        Configuration flink = new Configuration();
        flink.setString("pipeline.object-reuse", "true");
        // No operator falls back to Kryo unnoticed.
        flink.setString("pipeline.generic-types", "false");
        flink.setString("pipeline.auto-watermark-interval", "20 ms");
        flink.setString("execution.buffer-timeout.interval", "20 ms");
        flink.setString("state.backend.type", "hashmap");
        flink.setString("execution.checkpointing.interval", checkpointMs + " ms");
        flink.setString("execution.checkpointing.mode", "EXACTLY_ONCE");
        flink.setString("execution.checkpointing.storage", "filesystem");
        flink.setString("execution.checkpointing.dir", checkpoints);
        flink.setString("restart-strategy.type", "none");
        flink.setString("taskmanager.numberOfTaskSlots", String.valueOf(parallelism));
        flink.setString("taskmanager.memory.network.min", "64 mb");
        flink.setString("taskmanager.memory.network.max", "64 mb");
        // State is on the heap; only SQL's windows keep their buffers in managed memory.
        flink.setString("taskmanager.memory.managed.size", variant.equals("sql") ? "128 mb" : "0 mb");
        return StreamExecutionEnvironment.createLocalEnvironment(parallelism, flink);
    }

    <T> KafkaSource<T> source(KafkaRecordDeserializationSchema<T> reader) {
        KafkaSourceBuilder<T> source = KafkaSource.<T>builder()
                .setBootstrapServers(brokers)
                .setTopics(events)
                .setGroupId(results)
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setDeserializer(reader)
                .setProperty("isolation.level", "read_committed")
                .setProperty("fetch.max.wait.ms", "10")
                .setProperty("max.poll.records", "5000")
                .setProperty("register.consumer.metrics", "false")
                .setProperty("partition.discovery.interval.ms", "-1");
        if (bounded) {
            source.setBounded(OffsetsInitializer.latest());
        }
        return source.build();
    }

    <T> WatermarkStrategy<T> watermarks() {
        return WatermarkStrategy.forBoundedOutOfOrderness(Duration.ofMillis(boundMs));
    }

    <T> KafkaSink<T> sink(KafkaRecordSerializationSchema<T> writer) {
        return KafkaSink.<T>builder()
                .setBootstrapServers(brokers)
                .setRecordSerializer(writer)
                .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
                .setTransactionalIdPrefix(results)
                .setProperty("transaction.timeout.ms", "300000")
                .setProperty("register.producer.metrics", "false")
                .setProperty("linger.ms", "5")
                .setProperty("batch.size", "131072")
                .build();
    }
}
