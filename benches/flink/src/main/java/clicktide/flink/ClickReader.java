package clicktide.flink;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/**
 * Decodes and checks events: by hand, since the generic and the specific readers of Avro make an object per field and
 * resolve schemas per record. Ids are hashed from the record's own bytes, and of page names one string is kept for each, so
 * that hash maps need not compute its hash again. Not for several threads.
 */
final class ClickReader {
    private static final int ID_BYTES_MAX = 256;
    private static final int PAGE_URL_BYTES_MAX = 2048;
    private static final long FUTURE_MS = 300_000;
    /** Page names kept, a power of two. */
    private static final int PAGES = 1 << 12;

    // Any key will do: results hold no hashes.
    private final SipHash users = new SipHash(0x0706050403020100L, 0x0f0e0d0c0b0a0908L);
    private final SipHash sessions = new SipHash(0x1716151413121110L, 0x1f1e1d1c1b1a1918L);
    private final SipHash pages = new SipHash(0x2726252423222120L, 0x2f2e2d2c2b2a2928L);
    private final AvroCursor cursor = new AvroCursor();
    private final byte[][] pageBytes = new byte[PAGES][];
    private final String[] pageNames = new String[PAGES];

    /** Reads a record into {@code click}, and tells whether it counts. */
    boolean read(ConsumerRecord<byte[], byte[]> record, Click click) {
        byte[] body = record.value();
        if (body == null) {
            return false;
        }
        cursor.open(body);
        try {
            int length = cursor.readLength();
            if (length == 0 || length > ID_BYTES_MAX) {
                return false;
            }
            click.user = users.hash(body, cursor.at, length);
            cursor.at += length;
            length = cursor.readLength();
            if (length == 0 || length > ID_BYTES_MAX) {
                return false;
            }
            click.session = sessions.hash(body, cursor.at, length);
            cursor.at += length;
            click.type = cursor.readInt();
            length = cursor.readLength();
            if (length == 0 || length > PAGE_URL_BYTES_MAX || !namesAPage(body, cursor.at, length)) {
                return false;
            }
            click.page = page(body, cursor.at, length);
            cursor.at += length;
            if (cursor.readPresent()) { // product_id
                cursor.skipString();
            }
            click.timeMs = cursor.readLong();
            cursor.skipString(); // user_agent
            cursor.skipString(); // ip_address
            if (cursor.readPresent()) { // referrer
                cursor.skipString();
            }
            boolean reported = cursor.readPresent();
            click.sessionDurationS = reported ? cursor.readInt() : Click.UNREPORTED;
            return click.timeMs > 0
                    && click.timeMs <= record.timestamp() + FUTURE_MS
                    && (!reported || click.sessionDurationS >= 0);
        } catch (IndexOutOfBoundsException | IllegalArgumentException | ArithmeticException undecodable) {
            return false;
        }
    }

    private String page(byte[] body, int from, int length) {
        int slot = (int) pages.hash(body, from, length) & PAGES - 1;
        byte[] kept = pageBytes[slot];
        if (kept == null || !Arrays.equals(kept, 0, kept.length, body, from, from + length)) {
            pageBytes[slot] = Arrays.copyOfRange(body, from, from + length);
            pageNames[slot] = new String(body, from, length, StandardCharsets.UTF_8);
        }
        return pageNames[slot];
    }

    /** Whether it is a path or an http(s) URL with a host, without white space of ASCII. */
    private static boolean namesAPage(byte[] body, int from, int length) {
        for (int at = from; at < from + length; at++) {
            if (body[at] >= 0 && body[at] <= ' ') {
                return false;
            }
        }
        if (body[from] == '/') {
            return true;
        }
        int scheme = startsWith(body, from, length, "https://") ? 8 : startsWith(body, from, length, "http://") ? 7 : 0;
        return scheme > 0 && length > scheme && "/?#".indexOf(body[from + scheme]) < 0;
    }

    private static boolean startsWith(byte[] body, int from, int length, String prefix) {
        if (length < prefix.length()) {
            return false;
        }
        for (int at = 0; at < prefix.length(); at++) {
            if (body[from + at] != prefix.charAt(at)) {
                return false;
            }
        }
        return true;
    }
}
