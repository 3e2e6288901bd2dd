package clicktide.flink;

import java.io.IOException;
import java.util.Arrays;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/** A set of hashes, in one array with open addressing. */
final class LongSet {
    /** Zero marks a free slot; whether zero itself is in the set is kept apart. */
    private long[] slots = new long[8];
    private boolean hasZero;
    private int used;

    int size() {
        return used + (hasZero ? 1 : 0);
    }

    void clear() {
        Arrays.fill(slots, 0);
        used = 0;
        hasZero = false;
    }

    void add(long value) {
        if (value == 0) {
            hasZero = true;
            return;
        }
        int mask = slots.length - 1;
        int at = (int) value & mask; // the values are hashes already
        while (slots[at] != 0) {
            if (slots[at] == value) {
                return;
            }
            at = at + 1 & mask;
        }
        slots[at] = value;
        used++;
        if (2 * used > slots.length) {
            grow();
        }
    }

    void addAll(LongSet other) {
        hasZero |= other.hasZero;
        for (long value : other.slots) {
            if (value != 0) {
                add(value);
            }
        }
    }

    private void grow() {
        long[] before = slots;
        slots = new long[2 * before.length];
        used = 0;
        for (long value : before) {
            if (value != 0) {
                add(value);
            }
        }
    }

    void copyTo(LongSet target) {
        target.slots = slots.clone();
        target.used = used;
        target.hasZero = hasZero;
    }

    void write(DataOutputView out) throws IOException {
        out.writeBoolean(hasZero);
        out.writeInt(used);
        for (long value : slots) {
            if (value != 0) {
                out.writeLong(value);
            }
        }
    }

    void read(DataInputView in) throws IOException {
        boolean zero = in.readBoolean();
        int size = in.readInt();
        slots = new long[Math.max(8, Integer.highestOneBit(2 * size) * 2)];
        used = 0;
        hasZero = zero;
        for (int at = 0; at < size; at++) {
            add(in.readLong());
        }
    }
}
