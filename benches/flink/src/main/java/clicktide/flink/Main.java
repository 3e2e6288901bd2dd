package clicktide.flink;

/** Runs a variant of the job, embedded: job manager and task manager in this process. */
public final class Main {
    private Main() {}

    public static void main(String[] arguments) throws Exception {
        Settings settings = Settings.parse(arguments);
        switch (settings.variant()) {
            case "windows" -> StreamJobs.windows(settings);
            case "panes" -> StreamJobs.panes(settings);
            case "sql" -> SqlJob.run(settings);
            default -> throw new IllegalArgumentException("--variant=" + settings.variant() + ": windows, panes or sql");
        }
    }
}
