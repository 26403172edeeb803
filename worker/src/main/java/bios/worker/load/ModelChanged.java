package bios.worker.load;

/// A file of a base model is no longer what it was when the model was loaded; the message names it.
public final class ModelChanged extends RuntimeException {
    private static final long serialVersionUID = 1;

    /// @param what what has happened to which file
    public ModelChanged(String what) {
        super(what);
    }
}
