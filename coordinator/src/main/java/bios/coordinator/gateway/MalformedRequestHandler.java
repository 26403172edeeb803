package bios.coordinator.gateway;

import org.apache.pekko.event.LoggingAdapter;
import org.apache.pekko.http.ParsingErrorHandler;
import org.apache.pekko.http.javadsl.model.ContentTypes;
import org.apache.pekko.http.javadsl.model.HttpResponse;
import org.apache.pekko.http.scaladsl.model.ErrorInfo;
import org.apache.pekko.http.scaladsl.model.StatusCode;
import org.apache.pekko.http.scaladsl.settings.ServerSettings;

/// Answers malformed HTTP with an error response in JSON. Pekko finds the instance through `MODULE$`.
public final class MalformedRequestHandler extends ParsingErrorHandler {
    /// The singleton.
    public static final MalformedRequestHandler MODULE$ = new MalformedRequestHandler();

    private MalformedRequestHandler() {}

    @Override public HttpResponse handle(StatusCode status, ErrorInfo info, LoggingAdapter log,
            ServerSettings settings) {
        boolean target = info.summary().contains("request-target") || info.summary().contains("URI");
        int code = target ? 404 : status.intValue();
        String message = "the request is not well-formed HTTP: " + info.summary();
        byte[] body = JsonWriter.write(ApiResponse.object("error", target ? ErrorCode.NO_SUCH_CALL.wireName()
                : "malformed_http", "category", "user", "message", message, "field", null, "detail", message,
                "request_id", null));
        return HttpResponse.create().withStatus(code).withEntity(ContentTypes.APPLICATION_JSON, body);
    }
}
