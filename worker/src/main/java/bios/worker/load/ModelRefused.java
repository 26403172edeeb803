package bios.worker.load;

/// A model folder or tensor file that cannot be used: says where, what is wrong and what to do about it.
public final class ModelRefused extends RuntimeException {
    private static final long serialVersionUID = 1;

    /// @param where the folder or file
    /// @param what what is wrong with it
    /// @param remedy what to do instead
    public ModelRefused(String where, String what, String remedy) {
        super(where + ": " + what + "; " + remedy);
    }
}
