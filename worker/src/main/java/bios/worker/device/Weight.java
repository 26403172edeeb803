package bios.worker.device;

/// A frozen matrix `[out, in]` of a base model in the layout that a device multiplies fastest; created by
/// [Device#weight]. The device chooses the layouts (packed for x·Wᵀ, for dy·W, or both); one that only
/// training needs is created at its first use.
public interface Weight {
    int out();

    int in();
}
