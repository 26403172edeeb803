package bios.worker.model;

import bios.worker.adapter.Adapter;
import bios.worker.adapter.Factors;
import java.util.Optional;

/// Consecutive rows of a pass that one adapter corrects.
///
/// @param row the first row
/// @param count how many
/// @param gradient where dA and dB accumulate in backward
record Slot(int row, int count, Adapter adapter, Optional<Factors> gradient) {}
