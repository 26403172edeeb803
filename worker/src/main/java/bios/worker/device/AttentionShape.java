package bios.worker.device;

/// What is constant in the attention of a layer.
///
/// @param heads query heads; each `heads / kvHeads` neighbours share a key-value head (GQA)
/// @param headDim elements of a head
/// @param scale multiplies q·k, usually 1/√headDim
/// @param window how many positions a query sees, itself included; 0: all before it
public record AttentionShape(int heads, int kvHeads, int headDim, float scale, int window) {}
