// How what a barrier captured becomes a checkpoint: its name and number, and what became of it.

extension Coordinator {
  func store(_ stands: [PartitionStand], _ sections: [StateSection], isSavepoint: Bool) {
    guard let writer, !writer.isBusy, let number = nextNumber() else { return }
    let hex = String(suffix(), radix: 16)
    let digits = String(number)
    let name =
      "c-" + String(repeating: "0", count: max(0, 10 - digits.count)) + digits + "-"
      + String(repeating: "0", count: 8 - hex.count) + hex
    let manifest = CheckpointManifest(
      name: name, number: number, createdNanos: options.engine.clock(), group: options.group,
      revision: rules.revision, workers: options.engine.workers, isSavepoint: isSavepoint,
      partitions: stands.map { stand in
        let key = key(stand.identity)
        return StoredPartition(
          source: key.source, topic: key.topic, partition: key.partition, offset: stand.position,
          watermark: stand.watermark)
      }, operators: rules.graph.operators)
    writer.write(manifest, sections)
    storing = Dictionary(
      stands.map { (key($0.identity), ($0.position, $0.watermark)) }, uniquingKeysWith: { first, _ in first })
    nextCheckpoint = now + options.checkpointNanos
  }

  private func nextNumber() -> UInt64? {
    do {
      let last = try lastNumber ?? store?.list().last?.number ?? 0
      lastNumber = last + 1
      firstNumber = firstNumber ?? lastNumber
      return lastNumber
    } catch {
      noteCheckpointFailure("\(error)")
      return nil
    }
  }

  private func noteCheckpointFailure(_ text: String) {
    checkpointProblem = "checkpoints cannot be stored: \(text)"
    nextCheckpoint = now + options.checkpointNanos
    observe(.checkpointFailed(text))
  }

  /// What became of the checkpoint at hand: from now on commits name it.
  func takeStored() {
    guard let outcome = writer?.take() else { return }
    storing = nil
    if let manifest = outcome.manifest {
      checkpointProblem = nil
      for partition in manifest.partitions { bases[partition.key] = (manifest.name, partition.offset) }
      observe(
        .checkpoint(
          name: manifest.name, keys: manifest.sections.reduce(0) { $0 + $1.keys }, bytes: manifest.storedBytes,
          nanos: outcome.nanos))
    } else if let failure = outcome.failure {
      noteCheckpointFailure(failure)
    }
  }
}
