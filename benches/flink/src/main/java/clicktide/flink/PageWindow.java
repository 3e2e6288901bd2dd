package clicktide.flink;

import java.io.IOException;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.apache.flink.types.CopyableValue;
import org.apache.flink.types.StringValue;

/** The counters of a page in the window that ends at {@code endMs}: of one session, of several, or of all. */
public final class PageWindow implements CopyableValue<PageWindow> {
    String page = "";
    long endMs;
    long views;
    long clicks;
    long purchases;
    long sessions;
    long engaged;
    long bounced;
    long durationMs;
    final LongSet users = new LongSet();

    /** Begins anew, with one session on the page; its visits are added next. */
    void startSession(String page, long endMs, long durationMs, boolean bounced) {
        this.page = page;
        this.endMs = endMs;
        this.durationMs = durationMs;
        this.bounced = bounced ? 1 : 0;
        sessions = 1;
        engaged = 0;
        views = 0;
        clicks = 0;
        purchases = 0;
        users.clear();
    }

    void addVisit(Visit visit) {
        views += visit.views;
        clicks += visit.clicks;
        purchases += visit.purchases;
        if (visit.events > visit.views) {
            engaged = 1;
        }
        users.add(visit.user);
    }

    /** Adds what other sessions count for in the same page and window. */
    void add(PageWindow other) {
        page = other.page;
        endMs = other.endMs;
        views += other.views;
        clicks += other.clicks;
        purchases += other.purchases;
        sessions += other.sessions;
        engaged += other.engaged;
        bounced += other.bounced;
        durationMs += other.durationMs;
        users.addAll(other.users);
    }

    @Override
    public int getBinaryLength() {
        return -1;
    }

    @Override
    public void copyTo(PageWindow target) {
        target.page = page;
        target.endMs = endMs;
        target.views = views;
        target.clicks = clicks;
        target.purchases = purchases;
        target.sessions = sessions;
        target.engaged = engaged;
        target.bounced = bounced;
        target.durationMs = durationMs;
        users.copyTo(target.users);
    }

    @Override
    public PageWindow copy() {
        PageWindow copy = new PageWindow();
        copyTo(copy);
        return copy;
    }

    @Override
    public void copy(DataInputView source, DataOutputView target) throws IOException {
        PageWindow copy = new PageWindow();
        copy.read(source);
        copy.write(target);
    }

    @Override
    public void write(DataOutputView out) throws IOException {
        StringValue.writeString(page, out);
        out.writeLong(endMs);
        out.writeLong(views);
        out.writeLong(clicks);
        out.writeLong(purchases);
        out.writeLong(sessions);
        out.writeLong(engaged);
        out.writeLong(bounced);
        out.writeLong(durationMs);
        users.write(out);
    }

    @Override
    public void read(DataInputView in) throws IOException {
        page = StringValue.readString(in);
        endMs = in.readLong();
        views = in.readLong();
        clicks = in.readLong();
        purchases = in.readLong();
        sessions = in.readLong();
        engaged = in.readLong();
        bounced = in.readLong();
        durationMs = in.readLong();
        users.read(in);
    }
}
