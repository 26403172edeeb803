/// The reference implementation of every formula, in plain Java on rows of floats: every backend is tested
/// against it. Sums have a fixed order, so that equal inputs give equal bits.
package bios.worker.kernel;
