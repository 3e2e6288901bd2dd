package clicktide.flink;

import java.io.IOException;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.apache.flink.types.CopyableValue;
import org.apache.flink.types.StringValue;
import org.apache.flink.util.Collector;

/** What a session did in a stretch of time, on all pages: the accumulator of a window, or of a pane. */
public final class SessionActivity implements CopyableValue<SessionActivity> {
    int events;
    int views;
    long firstMs = Long.MAX_VALUE;
    long lastMs = Long.MIN_VALUE;
    /** The greatest duration that is reported, or {@link Click#UNREPORTED}. */
    int reportedS = Click.UNREPORTED;
    private HashMap<String, Visit> visits = new HashMap<>();

    void add(Click click) {
        events++;
        views += click.type == Click.VIEW ? 1 : 0;
        addTimes(click.timeMs, click.timeMs, click.sessionDurationS);
        visit(click.page, click.user).add(click);
    }

    /** Adds the counts of another stretch of time and its times. */
    void add(SessionActivity other) {
        addCounts(other, 1);
        addTimes(other);
    }

    void addTimes(SessionActivity other) {
        addTimes(other.firstMs, other.lastMs, other.reportedS);
    }

    private void addTimes(long first, long last, int reported) {
        firstMs = Math.min(firstMs, first);
        lastMs = Math.max(lastMs, last);
        reportedS = Math.max(reportedS, reported);
    }

    /** Adds the counts of another stretch of time, or takes them away; times are left alone. */
    void addCounts(SessionActivity other, int sign) {
        events += sign * other.events;
        views += sign * other.views;
        for (Map.Entry<String, Visit> entry : other.visits.entrySet()) {
            for (Visit change = entry.getValue(); change != null; change = change.next) {
                Visit visit = visit(entry.getKey(), change.user);
                visit.add(change, sign);
                if (visit.events == 0) {
                    remove(entry.getKey(), visit);
                }
            }
        }
    }

    private Visit visit(String page, long user) {
        Visit first = visits.get(page);
        for (Visit visit = first; visit != null; visit = visit.next) {
            if (visit.user == user) {
                return visit;
            }
        }
        Visit visit = new Visit(user, first);
        visits.put(page, visit);
        return visit;
    }

    private void remove(String page, Visit gone) {
        Visit first = visits.get(page);
        if (first == gone) {
            if (gone.next == null) {
                visits.remove(page);
            } else {
                visits.put(page, gone.next);
            }
            return;
        }
        for (Visit visit = first; visit != null; visit = visit.next) {
            if (visit.next == gone) {
                visit.next = gone.next;
            }
        }
    }

    /** What the session counts for on each of its pages, if this is its activity in the window that ends at {@code endMs}. */
    void emit(long endMs, PageWindow reused, Collector<PageWindow> out) {
        long durationMs = reportedS == Click.UNREPORTED ? lastMs - firstMs : 1_000L * reportedS;
        boolean bounced = events == 1 && views == 1;
        for (Map.Entry<String, Visit> entry : visits.entrySet()) {
            reused.startSession(entry.getKey(), endMs, durationMs, bounced);
            for (Visit visit = entry.getValue(); visit != null; visit = visit.next) {
                reused.addVisit(visit);
            }
            out.collect(reused);
        }
    }

    @Override
    public int getBinaryLength() {
        return -1;
    }

    @Override
    public void copyTo(SessionActivity target) {
        target.events = events;
        target.views = views;
        target.firstMs = firstMs;
        target.lastMs = lastMs;
        target.reportedS = reportedS;
        target.visits = new HashMap<>(visits);
        target.visits.replaceAll((page, visit) -> visit.copy());
    }

    @Override
    public SessionActivity copy() {
        SessionActivity copy = new SessionActivity();
        copyTo(copy);
        return copy;
    }

    @Override
    public void copy(DataInputView source, DataOutputView target) throws IOException {
        SessionActivity copy = new SessionActivity();
        copy.read(source);
        copy.write(target);
    }

    @Override
    public void write(DataOutputView out) throws IOException {
        out.writeInt(events);
        out.writeInt(views);
        out.writeLong(firstMs);
        out.writeLong(lastMs);
        out.writeInt(reportedS);
        out.writeInt(visits.size());
        for (Map.Entry<String, Visit> entry : visits.entrySet()) {
            StringValue.writeString(entry.getKey(), out);
            entry.getValue().write(out);
        }
    }

    @Override
    public void read(DataInputView in) throws IOException {
        events = in.readInt();
        views = in.readInt();
        firstMs = in.readLong();
        lastMs = in.readLong();
        reportedS = in.readInt();
        int size = in.readInt();
        visits = new HashMap<>(2 * size);
        for (int at = 0; at < size; at++) {
            visits.put(StringValue.readString(in), Visit.read(in));
        }
    }
}
