package bios.worker.model;

import bios.worker.adapter.Adapter;
import java.util.Optional;

/// One sequence's share of a pass over cached sequences: its next tokens, several of a prompt, one in
/// decoding.
///
/// @param tokens ids for positions `cache.length()` and after, at least one
/// @param adapter empty: the base model itself; the same in all passes of a cache
public record SequenceInput(int[] tokens, KeyValueCache cache, Optional<Adapter> adapter) {}
