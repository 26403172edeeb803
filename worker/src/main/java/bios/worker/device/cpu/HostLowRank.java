package bios.worker.device.cpu;

/// One adapter's correction of consecutive rows of a product: low·factor is added to them.
///
/// @param row the first row
/// @param low `[count, rank]`, the scale included
/// @param factor `[rank, columns]` of a forward product, `[columns, rank]` of a backward one
record HostLowRank(int row, HostTensor low, HostTensor factor) {}
