package clicktide.flink;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;

/**
 * SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF") of bytes, under a 128-bit key: the same function
 * as Clicktide's for ids, and no object per hash.
 */
final class SipHash {
    private static final VarHandle LONGS =
            MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);

    private final long low;
    private final long high;

    SipHash(long low, long high) {
        this.low = low;
        this.high = high;
    }

    long hash(byte[] bytes, int from, int length) {
        long v0 = low ^ 0x736f6d6570736575L;
        long v1 = high ^ 0x646f72616e646f6dL;
        long v2 = low ^ 0x6c7967656e657261L;
        long v3 = high ^ 0x7465646279746573L;
        int whole = length & ~7;
        for (int at = 0; at <= whole; at += 8) {
            long word;
            if (at < whole) {
                word = (long) LONGS.get(bytes, from + at);
            } else {
                word = (long) length << 56;
                for (int rest = whole; rest < length; rest++) {
                    word |= (bytes[from + rest] & 0xffL) << 8 * (rest - whole);
                }
            }
            v3 ^= word;
            v0 += v1;
            v2 += v3;
            v1 = Long.rotateLeft(v1, 13) ^ v0;
            v3 = Long.rotateLeft(v3, 16) ^ v2;
            v0 = Long.rotateLeft(v0, 32);
            v2 += v1;
            v0 += v3;
            v1 = Long.rotateLeft(v1, 17) ^ v2;
            v3 = Long.rotateLeft(v3, 21) ^ v0;
            v2 = Long.rotateLeft(v2, 32);
            v0 ^= word;
        }
        v2 ^= 0xff;
        for (int round = 0; round < 3; round++) {
            v0 += v1;
            v2 += v3;
            v1 = Long.rotateLeft(v1, 13) ^ v0;
            v3 = Long.rotateLeft(v3, 16) ^ v2;
            v0 = Long.rotateLeft(v0, 32);
            v2 += v1;
            v0 += v3;
            v1 = Long.rotateLeft(v1, 17) ^ v2;
            v3 = Long.rotateLeft(v3, 21) ^ v0;
            v2 = Long.rotateLeft(v2, 32);
        }
        return v0 ^ v1 ^ v2 ^ v3;
    }
}
