package bios.bench;

/// A measurement exceeded its [TimeLimit] and was ended; the message contains its name and the limit.
final class LeftOut extends RuntimeException {
    private static final long serialVersionUID = 1;

    LeftOut(String reason) {
        super(reason);
    }
}
