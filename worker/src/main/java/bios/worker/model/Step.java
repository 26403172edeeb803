package bios.worker.model;

import bios.worker.adapter.Adapter;
import java.util.Optional;

/// One sequence's share of an inference pass: its next tokens, several for a prompt, one while decoding.
///
/// @param tokens ids for positions `cache.length()` and after, at least one
/// @param adapter empty: the base model itself; the same for all steps of a cache
public record Step(int[] tokens, KeyValueCache cache, Optional<Adapter> adapter) {}
