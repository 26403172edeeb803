package bios.worker.load;

/// A base model, state or adapter has a number that is infinite or NaN.
public final class NotFinite extends ModelRefused {
    private static final long serialVersionUID = 1;

    private NotFinite(String where, String tensor, String place, String remedy) {
        super(where, "tensor '" + tensor + "' has " + place, remedy);
    }

    /// For the weights of a base model.
    ///
    /// @param where the folder or file
    /// @param place the first such number and its index, for example `NaN at [3, 17]`
    public static NotFinite ofModel(String where, String tensor, String place) {
        return new NotFinite(where, tensor, place, "the file is damaged or was saved from a model that has"
                + " diverged: download the model again");
    }

    /// For rows of a state or adapter.
    ///
    /// @param row the number of the first of these rows
    /// @param values of the rows; one of them is not finite
    public static NotFinite of(String where, String tensor, int row, int columns, float[] values) {
        int at = 0;
        while (Float.isFinite(values[at])) at++;
        return new NotFinite(where, tensor, values[at] + " at [" + (row + at / columns) + ", " + at % columns
                + "]", "the run has diverged: load a checkpoint of an earlier step");
    }
}
