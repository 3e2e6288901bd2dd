package clicktide.flink;

import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.Schema;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.runtime.typeutils.InternalTypeInfo;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.logical.BigIntType;
import org.apache.flink.table.types.logical.IntType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.table.types.logical.VarCharType;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * Counts and exact distinct users by Flink SQL's hopping windows, which share slices: an event is added to one slice, and a
 * window adds its slices up. Rates and durations, which need sessions across pages, it does not compute; they are 0.
 *
 * <p>Rows enter and leave in SQL's own form, so that nothing is converted.
 */
final class SqlJob {
    private static final RowType CLICK = RowType.of(
            new LogicalType[] {
                new VarCharType(VarCharType.MAX_LENGTH), new BigIntType(), new IntType(), new BigIntType()
            },
            new String[] {"page", "user_id", "type", "time_ms"});

    private static final String QUERY = """
            SELECT page, window_end,
              COUNT(*) FILTER (WHERE type = %d) AS view_count,
              COUNT(DISTINCT user_id) AS unique_users,
              COUNT(*) FILTER (WHERE type = %d) AS click_count,
              COUNT(*) FILTER (WHERE type = %d) AS conversion_count
            FROM HOP(TABLE clicks, DESCRIPTOR(event_time), INTERVAL '%s' SECOND(10, 3), INTERVAL '%s' SECOND(10, 3))
            GROUP BY page, window_start, window_end
            """;

    private SqlJob() {}

    static void run(Settings settings) throws Exception {
        StreamExecutionEnvironment environment = settings.environment();
        StreamTableEnvironment tables = StreamTableEnvironment.create(environment);
        tables.getConfig().set("table.local-time-zone", "UTC"); // windows start at multiples of the slide
        WatermarkStrategy<RowData> watermarks = settings.<RowData>watermarks()
                .withTimestampAssigner((row, recordMs) -> row.getLong(3));
        DataStream<RowData> clicks = environment.fromSource(
                settings.source(new ClickSchema<>(InternalTypeInfo.of(CLICK), SqlJob::row)), watermarks, "clicks");
        tables.createTemporaryView(
                "clicks",
                clicks,
                Schema.newBuilder()
                        .column("page", DataTypes.STRING())
                        .column("user_id", DataTypes.BIGINT())
                        .column("type", DataTypes.INT())
                        .column("time_ms", DataTypes.BIGINT())
                        .columnByMetadata("event_time", DataTypes.TIMESTAMP_LTZ(3), "rowtime")
                        .watermark("event_time", "SOURCE_WATERMARK()")
                        .build());
        DataType result = DataTypes.ROW(
                        DataTypes.FIELD("page", DataTypes.STRING()),
                        DataTypes.FIELD("window_end", DataTypes.TIMESTAMP(3)),
                        DataTypes.FIELD("view_count", DataTypes.BIGINT()),
                        DataTypes.FIELD("unique_users", DataTypes.BIGINT()),
                        DataTypes.FIELD("click_count", DataTypes.BIGINT()),
                        DataTypes.FIELD("conversion_count", DataTypes.BIGINT()))
                .bridgedTo(RowData.class);
        String query = QUERY.formatted(
                Click.VIEW, Click.CLICK, Click.PURCHASE, seconds(settings.slideMs()), seconds(settings.sizeMs()));
        DataStream<RowData> results = tables.toDataStream(tables.sqlQuery(query), result);
        results.sinkTo(settings.sink(new ResultWriter(settings.results(), settings.sizeMs())));
        environment.execute("page analytics in SQL");
    }

    private static String seconds(long ms) {
        return "%d.%03d".formatted(ms / 1_000, ms % 1_000);
    }

    private static RowData row(Click click) {
        return GenericRowData.of(
                StringData.fromString(click.page),
                click.user,
                click.type,
                click.timeMs);
    }

    private static final class ResultWriter implements KafkaRecordSerializationSchema<RowData> {
        private final String topic;
        private final long sizeMs;

        ResultWriter(String topic, long sizeMs) {
            this.topic = topic;
            this.sizeMs = sizeMs;
        }

        @Override
        public ProducerRecord<byte[], byte[]> serialize(RowData row, KafkaSinkContext context, Long timestamp) {
            long endMs = row.getTimestamp(1, 3).getMillisecond();
            return new PageAnalytics(
                    row.getString(0).toString(),
                    endMs - sizeMs,
                    endMs,
                    row.getLong(2),
                    row.getLong(3),
                    row.getLong(4),
                    row.getLong(5),
                    0,
                    0,
                    0)
                .toRecord(topic);
        }
    }
}
