// A portal in Express: a signed-in person sees the app Orders as themselves.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import express from "express";

const { PAT_SERVICE, CLIENT_ID, CLIENT_SECRET, PORT = 8000 } = process.env;
const HERE = import.meta.dirname;
const PAGES = process.env.PAGES ?? resolve(HERE, "../html");
const AUTHORIZATION = `Basic ${Buffer.from(`${CLIENT_ID}:${CLIENT_SECRET}`).toString("base64")}`;
const APPS = ["orders"];
const sessions = new Map(); // replace with a store that outlives this process

const html = (file) => readFileSync(file, "utf8").replaceAll("{{ service }}", PAT_SERVICE);
const app = express();

app.use((request, response, next) => {
  request.email = sessions.get(/(?:^|; )portal=([\w-]+)/.exec(request.headers.cookie)?.[1]);
  next();
});

app.get("/", (request, response) => {
  response.send(html(request.email ? resolve(PAGES, "page.html") : resolve(HERE, "sign-in.html")));
});

app.post("/sign-in", (request, response) => {
  const id = randomUUID();
  sessions.set(id, "ana@acme.test"); // replace with a password, single sign-on, …
  response.cookie("portal", id, { httpOnly: true, sameSite: "lax" }).redirect("/");
});

// Mint for the signed-in person. The client's secret stays here.
app.post("/embed-token", express.json(), async (request, response) => {
  // A page of another site can make this browser post a form with our cookie, but cannot send these headers.
  if ((request.get("Sec-Fetch-Site") ?? "same-origin") !== "same-origin" || !request.is("json"))
    return response.status(403).json({ detail: "Send JSON from one of the portal's own pages." });
  if (!request.email) return response.status(401).json({ detail: "Sign in first." });
  if (!APPS.includes(request.body.app))
    return response.status(404).json({ detail: "This portal does not have this app." });
  const mint = await fetch(`${PAT_SERVICE}/api/ext/users/personal-access-token`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: AUTHORIZATION },
    body: JSON.stringify({ email: request.email, appSlug: request.body.app, sessionExpiry: 60, patExpiry: 300 }),
    signal: AbortSignal.timeout(10_000),
    redirect: "error", // a redirect would send the client's secret to another address
  }).catch(() => null);
  if (!mint) return response.status(502).json({ detail: "The service cannot be reached." });
  // The page's script handles a refusal. A 401 concerns our secret, so the script must not see it.
  const wait = mint.headers.get("Retry-After");
  if (wait) response.set("Retry-After", wait);
  response.status(mint.status === 401 ? 502 : mint.status).set("Cache-Control", "no-store").json(await mint.json());
});

app.use(express.static(resolve(PAGES, "public"), { index: false }));
app.listen(PORT, () => console.log(`http://localhost:${PORT}/`));
