package clicktide.flink;

import java.io.Serializable;
import org.apache.flink.api.common.serialization.DeserializationSchema.InitializationContext;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/** Reads events from Kafka as {@link Click} or whatever is made of it, into one object that is used again. Those that do not count are dropped. */
final class ClickSchema<T> implements KafkaRecordDeserializationSchema<T> {
    /** Makes what the job works on. */
    interface Shape<T> extends Serializable {
        T of(Click click);
    }

    private final TypeInformation<T> type;
    private final Shape<T> shape;
    private transient ClickReader reader;
    private transient Click click;

    ClickSchema(TypeInformation<T> type, Shape<T> shape) {
        this.type = type;
        this.shape = shape;
    }

    @Override
    public void open(InitializationContext context) {
        reader = new ClickReader();
        click = new Click();
    }

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<T> out) {
        if (reader.read(record, click)) {
            out.collect(shape.of(click));
        }
    }

    @Override
    public TypeInformation<T> getProducedType() {
        return type;
    }
}
