package bios.worker.device;

/// A frozen matrix `[out, in]` of a base model in the form that a device multiplies fastest; made by
/// [Device#weight]. Which forms exist (packed for x·Wᵀ, for dy·W, both) is the device's business; a form that
/// only training needs is made at its first use.
public interface Weight {
    int out();

    int in();
}
