package clicktide.flink;

import java.io.IOException;
import java.util.ArrayDeque;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.apache.flink.types.CopyableValue;
import org.apache.flink.util.Collector;

/** A session's activity by pane, and that of the window as a whole: the state of {@link SessionPanes} for one session. */
public final class PanedSession implements CopyableValue<PanedSession> {
    /** A slide of event time in which the session did something. */
    private record Pane(long endMs, SessionActivity activity) {}

    /** Ordered by end. */
    private ArrayDeque<Pane> panes = new ArrayDeque<>();
    /** Counts of the panes in the window; its times are made anew for each window. */
    private SessionActivity window = new SessionActivity();

    boolean isEmpty() {
        return panes.isEmpty();
    }

    /** Adds an event to the pane that ends at {@code endMs}, and to the window too if that pane is in it already. */
    void add(Click click, long endMs, boolean entered) {
        pane(endMs).add(click);
        if (entered) {
            window.add(click);
        }
    }

    private SessionActivity pane(long endMs) {
        if (!panes.isEmpty() && panes.peekLast().endMs == endMs) {
            return panes.peekLast().activity;
        }
        for (Pane pane : panes) {
            if (pane.endMs == endMs) {
                return pane.activity;
            }
        }
        Pane fresh = new Pane(endMs, new SessionActivity());
        ArrayDeque<Pane> later = new ArrayDeque<>();
        while (!panes.isEmpty() && panes.peekLast().endMs > endMs) {
            later.addFirst(panes.removeLast());
        }
        panes.addLast(fresh);
        panes.addAll(later);
        return fresh.activity;
    }

    /** Moves the window on by one slide, to the end {@code endMs}, and emits what the session counts for. */
    void close(long endMs, long sizeMs, PageWindow reused, Collector<PageWindow> out) {
        while (!panes.isEmpty() && panes.peekFirst().endMs <= endMs - sizeMs) {
            window.addCounts(panes.removeFirst().activity, -1);
        }
        window.firstMs = Long.MAX_VALUE;
        window.lastMs = Long.MIN_VALUE;
        window.reportedS = Click.UNREPORTED;
        for (Pane pane : panes) {
            if (pane.endMs > endMs) {
                break;
            }
            if (pane.endMs == endMs) {
                window.addCounts(pane.activity, 1);
            }
            window.addTimes(pane.activity);
        }
        window.emit(endMs, reused, out);
    }

    @Override
    public int getBinaryLength() {
        return -1;
    }

    @Override
    public void copyTo(PanedSession target) {
        target.panes = new ArrayDeque<>(panes.size() + 1);
        for (Pane pane : panes) {
            target.panes.add(new Pane(pane.endMs, pane.activity.copy()));
        }
        window.copyTo(target.window);
    }

    @Override
    public PanedSession copy() {
        PanedSession copy = new PanedSession();
        copyTo(copy);
        return copy;
    }

    @Override
    public void copy(DataInputView source, DataOutputView target) throws IOException {
        PanedSession copy = new PanedSession();
        copy.read(source);
        copy.write(target);
    }

    @Override
    public void write(DataOutputView out) throws IOException {
        window.write(out);
        out.writeInt(panes.size());
        for (Pane pane : panes) {
            out.writeLong(pane.endMs);
            pane.activity.write(out);
        }
    }

    @Override
    public void read(DataInputView in) throws IOException {
        window.read(in);
        panes = new ArrayDeque<>();
        int size = in.readInt();
        for (int at = 0; at < size; at++) {
            long endMs = in.readLong();
            SessionActivity activity = new SessionActivity();
            activity.read(in);
            panes.add(new Pane(endMs, activity));
        }
    }
}
