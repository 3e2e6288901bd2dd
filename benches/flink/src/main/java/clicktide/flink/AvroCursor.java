package clicktide.flink;

import java.nio.charset.StandardCharsets;

/** Reads the bare Avro body of a record, field by field, without copying. */
final class AvroCursor {
    byte[] bytes = {};
    int at;

    void open(byte[] body) {
        bytes = body;
        at = 0;
    }

    long readLong() {
        long value = 0;
        for (int shift = 0; shift < Long.SIZE; shift += 7) {
            byte part = bytes[at++];
            value |= (part & 0x7fL) << shift;
            if (part >= 0) {
                return value >>> 1 ^ -(value & 1);
            }
        }
        throw new IllegalArgumentException("a number is longer than ten bytes");
    }

    int readInt() {
        return Math.toIntExact(readLong());
    }

    double readDouble() {
        long bits = 0;
        for (int shift = 0; shift < Long.SIZE; shift += 8) {
            bits |= (bytes[at++] & 0xffL) << shift;
        }
        return Double.longBitsToDouble(bits);
    }

    /** Reads the length of a string, whose bytes then begin at the cursor. */
    int readLength() {
        int length = readInt();
        if (length < 0 || length > bytes.length - at) {
            throw new IllegalArgumentException("a string is longer than the record");
        }
        return length;
    }

    void skipString() {
        int length = readLength();
        at += length;
    }

    /** Reads the position of a union's branch, of two; the second is the one that is not null. */
    boolean readPresent() {
        int branch = readInt();
        if (branch != 0 && branch != 1) {
            throw new IllegalArgumentException("a union has no branch " + branch);
        }
        return branch == 1;
    }

    String readString() {
        int length = readLength();
        String text = new String(bytes, at, length, StandardCharsets.UTF_8);
        at += length;
        return text;
    }
}
