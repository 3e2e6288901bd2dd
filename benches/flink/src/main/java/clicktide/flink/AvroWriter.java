package clicktide.flink;

import java.util.Arrays;

/** Writes the bare Avro body of one record, field by field. */
final class AvroWriter {
    private final byte[] bytes;
    private int at;

    /** A writer with room for as many bytes. */
    AvroWriter(int room) {
        bytes = new byte[room];
    }

    void writeLong(long value) {
        long rest = value << 1 ^ value >> 63;
        while ((rest & ~0x7fL) != 0) {
            bytes[at++] = (byte) (rest | 0x80);
            rest >>>= 7;
        }
        bytes[at++] = (byte) rest;
    }

    void writeDouble(double value) {
        long bits = Double.doubleToRawLongBits(value);
        for (int shift = 0; shift < Long.SIZE; shift += 8) {
            bytes[at++] = (byte) (bits >>> shift);
        }
    }

    void writeBytes(byte[] other) {
        System.arraycopy(other, 0, bytes, at, other.length);
        at += other.length;
    }

    byte[] toBytes() {
        return Arrays.copyOf(bytes, at);
    }
}
