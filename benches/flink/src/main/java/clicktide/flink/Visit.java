package clicktide.flink;

import java.io.IOException;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/** What a user did on a page in one session. Visits of further users in the same session are linked to it. */
final class Visit {
    final long user;
    int events;
    int views;
    int clicks;
    int purchases;
    Visit next;

    Visit(long user, Visit next) {
        this.user = user;
        this.next = next;
    }

    void add(Click click) {
        events++;
        switch (click.type) {
            case Click.VIEW -> views++;
            case Click.CLICK -> clicks++;
            case Click.PURCHASE -> purchases++;
            default -> { }
        }
    }

    void add(Visit other, int sign) {
        events += sign * other.events;
        views += sign * other.views;
        clicks += sign * other.clicks;
        purchases += sign * other.purchases;
    }

    /** Copies the whole list. */
    Visit copy() {
        Visit copy = new Visit(user, next == null ? null : next.copy());
        copy.add(this, 1);
        return copy;
    }

    void write(DataOutputView out) throws IOException {
        out.writeLong(user);
        out.writeInt(events);
        out.writeInt(views);
        out.writeInt(clicks);
        out.writeInt(purchases);
        out.writeBoolean(next != null);
        if (next != null) {
            next.write(out);
        }
    }

    static Visit read(DataInputView in) throws IOException {
        Visit visit = new Visit(in.readLong(), null);
        visit.events = in.readInt();
        visit.views = in.readInt();
        visit.clicks = in.readInt();
        visit.purchases = in.readInt();
        visit.next = in.readBoolean() ? read(in) : null;
        return visit;
    }
}
