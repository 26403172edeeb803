package bios.worker.device;

/// The parameters of the attention of a layer.
///
/// @param heads query heads; each `heads / kvHeads` consecutive ones share a key-value head (GQA)
/// @param headDim elements of a head
/// @param scale multiplies q·k, usually 1/√headDim
/// @param window number of positions that a query attends to, its own included; 0: all up to its own
public record AttentionShape(int heads, int kvHeads, int headDim, float scale, int window) {}
