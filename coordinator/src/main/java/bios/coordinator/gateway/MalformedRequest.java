package bios.coordinator.gateway;

import org.apache.pekko.event.LoggingAdapter;
import org.apache.pekko.http.ParsingErrorHandler;
import org.apache.pekko.http.javadsl.model.ContentTypes;
import org.apache.pekko.http.javadsl.model.HttpResponse;
import org.apache.pekko.http.scaladsl.model.ErrorInfo;
import org.apache.pekko.http.scaladsl.model.StatusCode;
import org.apache.pekko.http.scaladsl.settings.ServerSettings;

/// Answers what is not HTTP, before there is a request, as JSON too. Found by Pekko through `MODULE$`.
public final class MalformedRequest extends ParsingErrorHandler {
    /// The one instance.
    public static final MalformedRequest MODULE$ = new MalformedRequest();

    private MalformedRequest() {}

    @Override public HttpResponse handle(StatusCode status, ErrorInfo info, LoggingAdapter log,
            ServerSettings settings) {
        boolean target = info.summary().contains("request-target") || info.summary().contains("URI");
        int code = target ? 404 : status.intValue();
        String message = "the request is not well-formed HTTP: " + info.summary();
        byte[] body = JsonWriter.write(Reply.object("error", target ? Code.NO_SUCH_CALL.wireName()
                : "malformed_http", "category", "user", "message", message, "field", null, "detail", message,
                "request_id", null));
        return HttpResponse.create().withStatus(code).withEntity(ContentTypes.APPLICATION_JSON, body);
    }
}
