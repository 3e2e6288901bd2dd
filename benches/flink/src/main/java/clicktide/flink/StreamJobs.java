package clicktide.flink;

import java.time.Duration;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.KeyedStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.SlidingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;

/**
 * The job with all metrics, in the DataStream API.
 *
 * <pre>
 *  Kafka ─▶ ClickReader ─by session─▶ sliding windows ─▶ MergePages ─by page─▶ slide by slide ─▶ Kafka
 *                                     of the session                          added up
 * </pre>
 *
 * Two of the metrics of a page need what its sessions did on other pages. So windows are aggregated by session first; each
 * then tells every page what it counts for there, with the users it has seen, and pages add that up. What a window emits
 * has the window's end (less 1 ms) as its timestamp, so the second step is a tumbling window of one slide.
 */
final class StreamJobs {
    private StreamJobs() {}

    /** Sessions' windows by Flink's own assigner: an event is added to size/slide windows, incrementally. */
    static void windows(Settings settings) throws Exception {
        run(settings, clicks -> clicks
                .window(SlidingEventTimeWindows.of(Duration.ofMillis(settings.sizeMs()), Duration.ofMillis(settings.slideMs())))
                .aggregate(new AggregateSession(), new EmitSession()));
    }

    /** Sessions' windows made of panes by hand, for which Flink has no assigner. */
    static void panes(Settings settings) throws Exception {
        run(settings, clicks -> clicks.process(new SessionPanes(settings.sizeMs(), settings.slideMs())));
    }

    private interface SessionWindows {
        DataStream<PageWindow> of(KeyedStream<Click, Long> clicks);
    }

    private static void run(Settings settings, SessionWindows windows) throws Exception {
        StreamExecutionEnvironment environment = settings.environment();
        WatermarkStrategy<Click> watermarks =
                settings.<Click>watermarks().withTimestampAssigner((click, recordMs) -> click.timeMs);
        TypeInformation<Click> click = TypeInformation.of(Click.class);
        TypeInformation<PageWindow> pageWindow = TypeInformation.of(PageWindow.class);
        KeyedStream<Click, Long> clicks = environment
                .fromSource(settings.source(new ClickSchema<>(click, event -> event)), watermarks, "clicks")
                .keyBy(event -> event.session, Types.LONG);
        windows.of(clicks)
                .transform("merge pages", pageWindow, new MergePages())
                .keyBy(window -> window.page, Types.STRING)
                .window(TumblingEventTimeWindows.of(Duration.ofMillis(settings.slideMs())))
                .aggregate(new AggregatePage())
                .sinkTo(settings.sink(new PageWindowWriter(settings.results(), settings.sizeMs())));
        environment.execute("page analytics");
    }

    private static final class AggregateSession implements AggregateFunction<Click, SessionActivity, SessionActivity> {
        @Override
        public SessionActivity createAccumulator() {
            return new SessionActivity();
        }

        @Override
        public SessionActivity add(Click click, SessionActivity activity) {
            activity.add(click);
            return activity;
        }

        @Override
        public SessionActivity getResult(SessionActivity activity) {
            return activity;
        }

        @Override
        public SessionActivity merge(SessionActivity a, SessionActivity b) {
            a.add(b);
            return a;
        }
    }

    private static final class EmitSession extends ProcessWindowFunction<SessionActivity, PageWindow, Long, TimeWindow> {
        private transient PageWindow reused;

        @Override
        public void process(Long session, Context context, Iterable<SessionActivity> activities, Collector<PageWindow> out) {
            if (reused == null) {
                reused = new PageWindow();
            }
            for (SessionActivity activity : activities) {
                activity.emit(context.window().getEnd(), reused, out);
            }
        }
    }

    private static final class AggregatePage implements AggregateFunction<PageWindow, PageWindow, PageWindow> {
        @Override
        public PageWindow createAccumulator() {
            return new PageWindow();
        }

        @Override
        public PageWindow add(PageWindow part, PageWindow window) {
            window.add(part);
            return window;
        }

        @Override
        public PageWindow getResult(PageWindow window) {
            return window;
        }

        @Override
        public PageWindow merge(PageWindow a, PageWindow b) {
            a.add(b);
            return a;
        }
    }
}
