/// What is computed, each formula once, in plain Java on rows of floats: the truth that every backend is held
/// to. Sums run in a fixed order, so that equal inputs give equal bits.
package bios.worker.kernel;
