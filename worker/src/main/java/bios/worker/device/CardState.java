package bios.worker.device;

/// What the driver's monitor says of a card, all processes on it together. A value that the card does not
/// have is NaN.
///
/// @param uuid as `nvidia-smi -L` prints it
/// @param memoryUsed bytes
/// @param utilization share of the last moments in which a kernel ran, 0 to 1
/// @param clock of the multiprocessors, Hz
/// @param temperature degrees Celsius
/// @param power W
public record CardState(String uuid, double memoryUsed, double utilization, double clock, double temperature,
        double power) {}
