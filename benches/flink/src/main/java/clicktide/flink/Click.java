package clicktide.flink;

import java.io.IOException;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.apache.flink.types.CopyableValue;
import org.apache.flink.types.StringValue;

/** What the job needs of an event: ids are hashed already, as Clicktide does at ingestion. Times are ms since the epoch. */
public final class Click implements CopyableValue<Click> {
    static final int VIEW = 0;
    static final int CLICK = 1;
    static final int PURCHASE = 3;
    /** In place of a session's duration where the event reports none. */
    static final int UNREPORTED = -1;

    long session;
    long user;
    String page = "";
    /** The symbol's position in the schema's enumeration. */
    int type;
    long timeMs;
    int sessionDurationS = UNREPORTED;

    @Override
    public int getBinaryLength() {
        return -1;
    }

    @Override
    public void copyTo(Click target) {
        target.session = session;
        target.user = user;
        target.page = page;
        target.type = type;
        target.timeMs = timeMs;
        target.sessionDurationS = sessionDurationS;
    }

    @Override
    public Click copy() {
        Click copy = new Click();
        copyTo(copy);
        return copy;
    }

    @Override
    public void copy(DataInputView source, DataOutputView target) throws IOException {
        target.write(source, 2 * Long.BYTES);
        StringValue.copyString(source, target);
        target.write(source, 1 + Long.BYTES + Integer.BYTES);
    }

    @Override
    public void write(DataOutputView out) throws IOException {
        out.writeLong(session);
        out.writeLong(user);
        StringValue.writeString(page, out);
        out.writeByte(type);
        out.writeLong(timeMs);
        out.writeInt(sessionDurationS);
    }

    @Override
    public void read(DataInputView in) throws IOException {
        session = in.readLong();
        user = in.readLong();
        page = StringValue.readString(in);
        type = in.readByte();
        timeMs = in.readLong();
        sessionDurationS = in.readInt();
    }
}
