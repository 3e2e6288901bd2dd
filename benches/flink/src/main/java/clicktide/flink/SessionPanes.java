package clicktide.flink;

import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/**
 * Sliding windows of sessions, made of panes by hand: an event is added to one pane, and a window is the one before it plus
 * the pane that enters and less the one that leaves. One timer per session and slide, while the session is in a window.
 */
final class SessionPanes extends KeyedProcessFunction<Long, Click, PageWindow> {
    private final long sizeMs;
    private final long slideMs;
    private transient ValueState<PanedSession> sessions;
    private transient PageWindow reused;

    SessionPanes(long sizeMs, long slideMs) {
        this.sizeMs = sizeMs;
        this.slideMs = slideMs;
    }

    @Override
    public void open(OpenContext context) {
        sessions = getRuntimeContext().getState(
                new ValueStateDescriptor<>("session", TypeInformation.of(PanedSession.class)));
        reused = new PageWindow();
    }

    @Override
    public void processElement(Click click, Context context, Collector<PageWindow> out) throws Exception {
        long watermark = context.timerService().currentWatermark();
        long endMs = nextEnd(click.timeMs);
        boolean entered = endMs - 1 <= watermark;
        if (endMs + sizeMs - slideMs - 1 <= watermark) {
            return; // late: all of its windows are closed
        }
        PanedSession session = sessions.value();
        if (session == null) {
            session = new PanedSession();
        }
        session.add(click, endMs, entered);
        sessions.update(session);
        context.timerService().registerEventTimeTimer((entered ? nextEnd(watermark + 1) : endMs) - 1);
    }

    @Override
    public void onTimer(long timestamp, OnTimerContext context, Collector<PageWindow> out) throws Exception {
        PanedSession session = sessions.value();
        session.close(timestamp + 1, sizeMs, reused, out);
        if (session.isEmpty()) {
            sessions.clear();
        } else {
            sessions.update(session);
            context.timerService().registerEventTimeTimer(timestamp + slideMs);
        }
    }

    /** The first window end after a time. */
    private long nextEnd(long timeMs) {
        return Math.floorDiv(timeMs, slideMs) * slideMs + slideMs;
    }
}
