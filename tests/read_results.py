#!/usr/bin/env python3
"""Reads the results topic as any consumer would that is not written in Rust: with Confluent's Kafka client and fastavro,
the published schema, and what docs and schema promise. Prints a summary as JSON; exits with 1 if anything is not so.

    read_results.py BROKERS TOPIC SCHEMA.avsc [--consumer SCHEMA.avsc] [--expect-at-least N] [--timeout SECONDS]
"""

import argparse
import io
import json
import math
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
COUNTS = ("view_count", "unique_users", "click_count", "conversion_count")
RATES = ("engagement_rate", "bounce_rate")
SHOWN = 20


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brokers")
    parser.add_argument("topic")
    parser.add_argument("schema", type=Path)
    parser.add_argument(
        "--consumer", type=Path, action="append", default=[], metavar="SCHEMA", help="an earlier schema to read with, too"
    )
    parser.add_argument("--expect-at-least", type=int, default=0, metavar="N", help="wait for N results, fail without")
    parser.add_argument("--timeout", type=float, default=30, metavar="SECONDS", help="for everything (default 30)")
    return parser.parse_args()


def murmur2(data):
    """The hash by which Kafka's own clients choose a record's partition."""
    mask, mix = 0xFFFFFFFF, 0x5BD1E995
    value = (0x9747B28C ^ len(data)) & mask
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * mix & mask
        word = (word ^ word >> 24) * mix & mask
        value = value * mix & mask ^ word
    if len(data) > whole:
        value = (value ^ int.from_bytes(data[whole:], "little")) * mix & mask
    value = (value ^ value >> 13) * mix & mask
    return value ^ value >> 15


def millis(value):
    """Whole milliseconds since the epoch, from what fastavro makes of a timestamp-millis."""
    return (value - EPOCH) // timedelta(milliseconds=1) if isinstance(value, datetime) else None


def is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)


class Checker:
    def __init__(self, schema, consumers, partitions):
        self.schema = fastavro.parse_schema(schema)
        self.fields = [field["name"] for field in schema["fields"]]
        self.consumers = [(consumer, fastavro.parse_schema(consumer)) for consumer in consumers]
        self.partitions = partitions
        self.results = 0
        self.violations = 0
        self.first_violations = []
        self.seen = {}
        self.sizes = set()

    def violation(self, where, what):
        self.violations += 1
        if len(self.first_violations) < SHOWN:
            self.first_violations.append(f"{where}: {what}")

    def check(self, message):
        self.results += 1
        where = f"{message.topic()}[{message.partition()}]@{message.offset()}"
        for what in self.wrong(message, where):
            self.violation(where, what)

    def wrong(self, message, where):
        key, body = message.key(), message.value()
        if body is None:
            yield "no value"
            return
        stream = io.BytesIO(body)
        try:
            result = fastavro.schemaless_reader(stream, self.schema, None)
        except Exception as error:  # whatever a decoder raises, the body is not what the schema says
            yield f"cannot be decoded by the schema: {type(error).__name__}: {error}"
            return
        if stream.tell() != len(body):
            yield f"{len(body) - stream.tell()} bytes after the end of the Avro body"
        if list(result) != self.fields:
            yield f"the fields are {list(result)}"
        for consumer, schema in self.consumers:
            earlier = fastavro.schemaless_reader(io.BytesIO(body), self.schema, schema)
            for name in (field["name"] for field in consumer["fields"]):
                if name in result and earlier[name] != result[name]:
                    yield f"read with an earlier schema, {name} is {earlier[name]!r} and not {result[name]!r}"

        page = result["page_url"]
        if not isinstance(page, str) or not page:
            yield f"page_url is {page!r}"
        elif key is None or key != page.encode():
            yield f"the key {key!r} is not the page_url {page!r}"
        elif (murmur2(key) & 0x7FFFFFFF) % self.partitions != message.partition():
            yield f"{page!r} is in another partition than Kafka's own clients would put it"

        start, end = millis(result["window_start"]), millis(result["window_end"])
        if start is None or end is None or end <= start:
            yield f"the window is [{result['window_start']!r}, {result['window_end']!r})"
        else:
            self.sizes.add(end - start)
            before = self.seen.setdefault((page, end), where)
            if before != where:
                yield f"{page!r} has its window that ends at {end} twice, first at {before}"

        for name in COUNTS:
            if not is_int(result[name]) or result[name] < 0:
                yield f"{name} is {result[name]!r}"
        if result["unique_users"] == 0:
            yield "a page without any event has a result"
        for name in RATES:
            if not isinstance(result[name], float) or not 0 <= result[name] <= 1:
                yield f"{name} is {result[name]!r}"
        duration = result["avg_session_duration"]
        if not isinstance(duration, float) or not math.isfinite(duration) or duration < 0:
            yield f"avg_session_duration is {duration!r}"


def main():
    options = arguments()
    deadline = time.monotonic() + options.timeout
    consumer = Consumer(
        {
            "bootstrap.servers": options.brokers,
            "group.id": "read-results",  # the client wants one; partitions are assigned by hand, nothing is committed
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
        }
    )
    metadata = consumer.list_topics(options.topic, timeout=options.timeout).topics[options.topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    partitions = sorted(metadata.partitions)
    schema, *consumers = (json.loads(path.read_text(encoding="utf-8")) for path in [options.schema, *options.consumer])
    checker = Checker(schema, consumers, len(partitions))
    consumer.assign([TopicPartition(options.topic, partition, OFFSET_BEGINNING) for partition in partitions])

    # The end: every partition has been read up to what was its last stable offset at some moment. (Comparing positions
    # with end offsets would not do: the last ones are the transactions' own markers, which no consumer is shown.)
    ended = set()
    while len(ended) < len(partitions) or checker.results < options.expect_at_least:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        message = consumer.poll(min(left, 1.0))
        if message is None:
            continue
        if message.error() is None:
            checker.check(message)
        elif message.error().code() == KafkaError._PARTITION_EOF:
            ended.add(message.partition())
        else:
            raise KafkaException(message.error())
    consumer.close()

    if len(ended) < len(partitions):
        checker.violation(options.topic, f"the end was not reached within {options.timeout:g} s")
    if checker.results < options.expect_at_least:
        checker.violation(options.topic, f"{checker.results} results, not at least {options.expect_at_least}")
    ends = [end for _, end in checker.seen]
    json.dump(
        {
            "topic": options.topic,
            "partitions": len(partitions),
            "results": checker.results,
            "pages": len({page for page, _ in checker.seen}),
            "windows": len(set(ends)),
            "first_window_end": min(ends, default=None),
            "last_window_end": max(ends, default=None),
            "window_sizes": sorted(checker.sizes),
            "violations": checker.violations,
            "first_violations": checker.first_violations,
        },
        sys.stdout,
        indent=2,
        ensure_ascii=False,
    )
    print()
    return 1 if checker.violations else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KafkaException, OSError, ValueError) as error:
        sys.exit(f"read_results.py: {error}")
