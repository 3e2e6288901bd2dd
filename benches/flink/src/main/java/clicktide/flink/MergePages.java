package clicktide.flink;

import java.util.HashMap;
import java.util.Map;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/**
 * Adds up the sessions of each page and window before they are exchanged, in the task that made them: the first of two phases
 * of an aggregation, as in Flink SQL. Keeps nothing across checkpoints, since it gives everything away before their barriers.
 */
final class MergePages extends AbstractStreamOperator<PageWindow> implements OneInputStreamOperator<PageWindow, PageWindow> {
    private record Key(String page, long endMs) {}

    private transient Map<Key, PageWindow> merged;

    @Override
    public void open() throws Exception {
        super.open();
        merged = new HashMap<>();
    }

    @Override
    public void processElement(StreamRecord<PageWindow> record) {
        PageWindow part = record.getValue();
        merged.computeIfAbsent(new Key(part.page, part.endMs), key -> new PageWindow()).add(part);
    }

    @Override
    public void processWatermark(Watermark watermark) throws Exception {
        flush();
        super.processWatermark(watermark);
    }

    @Override
    public void prepareSnapshotPreBarrier(long checkpointId) {
        flush();
    }

    @Override
    public void finish() throws Exception {
        flush();
        super.finish();
    }

    private void flush() {
        for (PageWindow window : merged.values()) {
            output.collect(new StreamRecord<>(window, window.endMs - 1));
        }
        merged.clear();
    }
}
