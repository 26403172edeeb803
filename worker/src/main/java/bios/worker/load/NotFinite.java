package bios.worker.load;

import bios.protocol.Fault;

/// A base model, state or adapter has a number that is infinite or NaN.
public final class NotFinite extends ModelRefused {
    private static final long serialVersionUID = 1;
    private final String code;

    private NotFinite(String code, String where, String tensor, String place, String remedy) {
        super(where, "tensor '" + tensor + "' has " + place, remedy);
        this.code = code;
    }

    /// The weights of a base model.
    ///
    /// @param where the folder or file
    /// @param place the first such number and its index, for example `NaN at [3, 17]`
    public static NotFinite inModel(String where, String tensor, String place) {
        return new NotFinite("non_finite", where, tensor, place, "the file is damaged, or was saved from a"
                + " model that has diverged: download the model again");
    }

    /// A state or adapter that is read.
    ///
    /// @param row the number of the first row in `values`
    /// @param values rows, of which one has such a number
    public static NotFinite inFile(String where, String tensor, int row, int columns, float[] values) {
        return new NotFinite("non_finite", where, tensor, place(row, columns, values),
                "the run that wrote it has diverged: load a checkpoint of an earlier step");
    }

    /// The state of a run that is saved; parameters as in [#inFile].
    public static NotFinite inState(String tensor, int row, int columns, float[] values) {
        return new NotFinite(Fault.STATE_NOT_FINITE, "the run's state", tensor, place(row, columns, values),
                "the run has diverged: load a checkpoint of an earlier step");
    }

    private static String place(int row, int columns, float[] values) {
        int at = 0;
        while (Float.isFinite(values[at])) at++;
        return values[at] + " at [" + (row + at / columns) + ", " + at % columns + "]";
    }

    /// How the operation fails.
    ///
    /// @param what the operation
    public Fault fault(String what) {
        return Fault.user(code, what + ": " + getMessage());
    }
}
