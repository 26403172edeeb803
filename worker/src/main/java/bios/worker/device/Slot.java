package bios.worker.device;

import java.util.Optional;

/// Consecutive rows of a pass that use one adapter.
///
/// @param row the first row
/// @param count number of rows
/// @param scale alpha / rank
/// @param weights the adapter's factors
/// @param gradient the tensors to which [Device#projectBack] adds dA and dB; empty in a pass without backward
public record Slot(int row, int count, float scale, FactorTable weights, Optional<FactorTable> gradient) {}
