#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

// `rd_kafka_producev` for Swift, which cannot call variadic functions. Copies key and payload;
// `timestamp_millis` 0 is now. `opaque` comes back with the delivery report.
static inline rd_kafka_resp_err_t rd_kafka_shim_produce(
    rd_kafka_t *client, rd_kafka_topic_t *topic, int32_t partition, const void *key, size_t key_length,
    const void *payload, size_t payload_length, int64_t timestamp_millis,
    void *opaque) {
  return rd_kafka_producev(
      client, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_PARTITION(partition),
      RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
      RD_KAFKA_V_KEY((void *)key, key_length), RD_KAFKA_V_VALUE((void *)payload, payload_length),
      RD_KAFKA_V_TIMESTAMP(timestamp_millis), RD_KAFKA_V_OPAQUE(opaque), RD_KAFKA_V_END);
}
