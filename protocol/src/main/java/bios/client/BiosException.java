package bios.client;

import bios.protocol.Fault;
import bios.protocol.client.Problem;
import java.util.Optional;

/// Why the stage of a request failed: [Refused], [OperationFailed], [Disconnected], [AnswerLost] or
/// [ClientFull]. The codes are those of docs/reference/errors.md.
public abstract sealed class BiosException extends RuntimeException {
    private static final long serialVersionUID = 1;
    private final transient Problem problem;

    private BiosException(Problem problem) {
        super(problem.code() + ": " + problem.message(), null, false, false);
        this.problem = problem;
    }

    /// A problem that the client itself reports.
    private static Problem ofClient(String code, String message) {
        return new Problem(Fault.Kind.USER, code, message, Optional.empty(), Optional.empty(), 0);
    }

    /// The stable code, e.g. `invalid`.
    public String code() {
        return problem.code();
    }

    /// All that is known of it.
    public Problem problem() {
        return problem;
    }

    /// Whether the caller can correct it; otherwise it is a fault of the service or its environment.
    public boolean isUserError() {
        return problem.kind() == Fault.Kind.USER;
    }

    /// The request was refused: nothing was stored, later operations of the run go on.
    public static final class Refused extends BiosException {
        private static final long serialVersionUID = 1;

        Refused(Problem problem) {
            super(problem);
        }

        /// The gateway has ignored what it does not know.
        ///
        /// @param what of it: the rest of the sentence after "which"
        static Refused olderGateway(String what) {
            return new Refused(ofClient("unsupported", "the gateway is of an older build, which " + what));
        }
    }

    /// The operation or sampling request was accepted and has failed.
    public static final class OperationFailed extends BiosException {
        private static final long serialVersionUID = 1;

        OperationFailed(Problem problem) {
            super(problem);
        }
    }

    /// This client has no session with a gateway any more. The request may have been stored.
    public static final class Disconnected extends BiosException {
        private static final long serialVersionUID = 1;

        private Disconnected() {
            super(ofClient("client_closed", "the client was closed"));
        }

        static Disconnected closed() {
            return new Disconnected();
        }
    }

    /// The request names no operation, or to a gateway that does not know the name, so it was not sent again
    /// when its answer was lost. It may have been carried out.
    public static final class AnswerLost extends BiosException {
        private static final long serialVersionUID = 1;

        AnswerLost() {
            super(ofClient("answer_lost", "the answer was lost, and the request may have been carried out."
                    + " A repetition might act on another operation: describe the run, then name the"
                    + " operation"));
        }
    }

    /// More waits in this client than its settings allow. Nothing was sent.
    public static final class ClientFull extends BiosException {
        private static final long serialVersionUID = 1;

        ClientFull(String message) {
            super(ofClient("client_full", message));
        }
    }
}
