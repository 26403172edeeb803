package bios.worker.load;

/// A model folder or tensor file cannot be used; the message contains the place, the reason and a remedy.
public class ModelRefused extends RuntimeException {
    private static final long serialVersionUID = 1;

    /// @param message the place, the reason and a remedy
    public ModelRefused(String message) {
        super(message);
    }

    /// @param where the folder or file
    /// @param what the reason
    /// @param remedy what the user can do
    public ModelRefused(String where, String what, String remedy) {
        super(where + ": " + what + "; " + remedy);
    }
}
