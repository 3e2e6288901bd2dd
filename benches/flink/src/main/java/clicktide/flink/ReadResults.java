package clicktide.flink;

import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Reads results topics as any consumer would that wants committed results only, and prints a line per result: topic, when
 * it was received (ms since the epoch), window end, page, and the figures, separated by tabs.
 *
 * <p>{@code ReadResults BROKERS TOPIC[,TOPIC] end} reads to the end; {@code … follow} reads on until it is stopped, and prints
 * a line {@code ready} once it has begun. {@code ReadResults BROKERS TOPIC closes BOUND SLIDE} reads events instead and prints
 * when each window could be closed: its end, and the time of the log at which the last partition had an event that is
 * BOUND ms past the end.
 */
public final class ReadResults {
    private static final Duration WAIT = Duration.ofMillis(50);

    private ReadResults() {}

    public static void main(String[] arguments) {
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        Map<String, Object> properties = Map.of(
                "bootstrap.servers", arguments[0],
                "isolation.level", "read_committed",
                "enable.auto.commit", "false",
                "auto.offset.reset", "earliest",
                "max.poll.records", "10000");
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            Set<TopicPartition> partitions = Arrays.stream(arguments[1].split(","))
                    .flatMap(topic -> consumer.partitionsFor(topic).stream())
                    .map(partition -> new TopicPartition(partition.topic(), partition.partition()))
                    .collect(Collectors.toSet());
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            switch (arguments[2]) {
                case "end" -> readToEnd(consumer, record -> print(out, record));
                case "follow" -> follow(consumer, out);
                case "closes" -> {
                    Closes closes = new Closes(Long.parseLong(arguments[3]), Long.parseLong(arguments[4]), partitions.size());
                    readToEnd(consumer, closes::add);
                    closes.print(out);
                }
                default -> throw new IllegalArgumentException(arguments[2] + ": end, follow or closes");
            }
        }
        out.flush();
    }

    private interface Take {
        void record(ConsumerRecord<byte[], byte[]> record);
    }

    private static void readToEnd(KafkaConsumer<byte[], byte[]> consumer, Take take) {
        Map<TopicPartition, Long> ends = consumer.endOffsets(consumer.assignment());
        while (ends.entrySet().stream().anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
            consumer.poll(WAIT).forEach(take::record);
        }
    }

    private static void follow(KafkaConsumer<byte[], byte[]> consumer, PrintStream out) {
        warmUp();
        consumer.poll(WAIT);
        out.println("ready");
        out.flush();
        while (!out.checkError()) {
            consumer.poll(WAIT).forEach(record -> print(out, record));
            out.flush();
        }
    }

    /** So that the first results are not received late for want of compiled code. */
    private static void warmUp() {
        PrintStream nowhere = new PrintStream(OutputStream.nullOutputStream());
        byte[] body = new PageAnalytics("/", 0, 1, 1, 1, 1, 1, 0.5, 0.5, 0.5).toRecord("none").value();
        for (int round = 0; round < 10_000; round++) {
            print(nowhere, new ConsumerRecord<>("none", 0, 0, null, body));
        }
    }

    private static void print(PrintStream out, ConsumerRecord<byte[], byte[]> record) {
        PageAnalytics result = PageAnalytics.read(record.value());
        out.printf(
                "%s\t%d\t%d\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s%n",
                record.topic(), System.currentTimeMillis(), result.endMs(), result.page(), result.views(), result.users(),
                result.clicks(), result.purchases(), result.engagementRate(), result.bounceRate(), result.sessionDurationS());
    }

    /** When windows could be closed, by the log's own times. */
    private static final class Closes {
        private final long boundMs;
        private final long slideMs;
        private final int partitions;
        private final ClickReader reader = new ClickReader();
        private final Click click = new Click();
        private final Map<Integer, Long> passedBy = new HashMap<>();
        private final TreeMap<Long, Passed> passed = new TreeMap<>();

        private record Passed(int partitions, long logMs) {}

        Closes(long boundMs, long slideMs, int partitions) {
            this.boundMs = boundMs;
            this.slideMs = slideMs;
            this.partitions = partitions;
        }

        void add(ConsumerRecord<byte[], byte[]> record) {
            if (!reader.read(record, click)) {
                return;
            }
            long end = Math.floorDiv(click.timeMs - boundMs, slideMs) * slideMs;
            long before = passedBy.getOrDefault(record.partition(), end);
            for (long at = before + slideMs; at <= end; at += slideMs) {
                passed.merge(at, new Passed(1, record.timestamp()),
                        (a, b) -> new Passed(a.partitions + b.partitions, Math.max(a.logMs, b.logMs)));
            }
            passedBy.put(record.partition(), Math.max(before, end));
        }

        void print(PrintStream out) {
            passed.forEach((end, all) -> {
                if (all.partitions == partitions) {
                    out.printf("%d\t%d%n", end, all.logMs);
                }
            });
        }
    }
}
