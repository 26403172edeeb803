package bios.node;

import bios.CommandFailed;
import bios.Logs;
import bios.protocol.model.ModelName;
import bios.worker.device.Device;
import bios.worker.device.DeviceLost;
import bios.worker.device.Devices;
import bios.worker.load.ModelFolders;
import com.typesafe.config.ConfigFactory;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// The program `bios up` with a device that is lost once a file exists, and whose `close` then hangs: the
/// wiring and the end of the process are the program's own.
public final class LosingNode {
    private LosingNode() {}

    /// @param arguments folder of the data, folder of the model, file whose existence loses the device
    public static void main(String[] arguments) throws InterruptedException {
        Logs.configure("");
        Path lost = Path.of(arguments[2]);
        var settings = new Node.Settings(Optional.empty(), EnumSet.allOf(Role.class), "127.0.0.1", 0,
                Path.of(arguments[0]), new ModelFolders(
                        Map.of(new ModelName("bios/tiny"), Path.of(arguments[1])), List.of()),
                Optional.empty(), Optional.of(1), ConfigFactory.empty(), Optional.empty());
        try {
            Node node = Node.start(settings, device -> losing(Devices.open(device), lost));
            System.out.println("ready " + node.url().orElseThrow());
            node.awaitEnd();
            System.exit(0);
        } catch (CommandFailed failed) {
            System.err.println("bios: " + failed.getMessage());
            System.exit(failed.status());
        }
    }

    private static Device losing(Device real, Path lost) {
        return (Device) Proxy.newProxyInstance(Device.class.getClassLoader(), new Class<?>[] {Device.class},
                (_, method, arguments) -> {
                    if (Files.exists(lost) && method.getName().equals("close"))
                        Thread.sleep(Long.MAX_VALUE); // edge: a driver that hangs
                    if (Files.exists(lost)) throw new DeviceLost("fell off the bus");
                    try {
                        return method.invoke(real, arguments);
                    } catch (InvocationTargetException failed) {
                        throw failed.getCause();
                    }
                });
    }
}
