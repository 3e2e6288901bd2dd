# syntax=docker/dockerfile:1
# Apache Kafka for docker-compose.yml, with Prometheus' JMX exporter, which serves the broker's own metrics on port 7071.

FROM maven:3.9-eclipse-temurin-21 AS exporter
# The version of scripts/kafka, with which it is tried.
RUN mvn --batch-mode --strict-checksums org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
    -Dartifact=io.prometheus.jmx:jmx_prometheus_javaagent:1.0.1 -DoutputDirectory=/exporter -Dmdep.stripVersion=true

FROM apache/kafka:4.4.0
COPY --from=exporter --chmod=644 /exporter/jmx_prometheus_javaagent.jar /opt/exporter/exporter.jar
COPY --chmod=644 kafka-jmx.yml /opt/exporter/kafka.yml
# Kafka's own tools take it too, and would ask for the same port: in this container, run them with an empty KAFKA_OPTS.
ENV KAFKA_OPTS="-javaagent:/opt/exporter/exporter.jar=7071:/opt/exporter/kafka.yml"
