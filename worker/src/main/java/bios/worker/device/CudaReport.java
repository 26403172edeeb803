package bios.worker.device;

import java.util.List;

/// What a machine has of all that the CUDA backend needs, in words, for `bios doctor`.
///
/// @param cards a line for each card that the driver lists
/// @param usable whether one of them is supported
/// @param libraries the driver and the libraries that were found
/// @param missing what is missing, and how to get it; of interest where there is a card
public record CudaReport(List<String> cards, boolean usable, List<String> libraries, List<String> missing) {}
