package bios.worker.model;

import bios.worker.adapter.Adapter;
import bios.worker.adapter.Factors;
import java.util.List;
import java.util.Optional;

/// One run's share of a training pass: whole sequences, and what to do with the
/// log-probabilities of their targets.
///
/// @param adapter empty: the base model itself
/// @param gradient where dA and dB are added; empty: forward only
/// @param sequences token ids, each sequence from position 0, none empty
/// @param targets one token id for each position of all sequences, one after another
public record Lesson(Optional<Adapter> adapter, Optional<Factors> gradient, List<int[]> sequences,
        int[] targets, Objective objective) {
    public Lesson {
        sequences = List.copyOf(sequences);
    }

    /// Positions of all sequences.
    public int rows() {
        return sequences.stream().mapToInt(s -> s.length).sum();
    }
}
