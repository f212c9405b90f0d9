// A page in React 19. <pat-embed> is a plain element: attributes in, events out. It shows its children while it opens.
import { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import type {} from "./pat-embed"; // types of <pat-embed>

function Orders({ dark }: { dark: boolean }) {
  const [state, setState] = useState("");
  return (
    <>
      <p role="status">{state}</p>
      <pat-embed
        app="orders"
        token-url="/embed-token"
        auto-height=""
        theme={dark ? "dark" : "light"}
        onloaded={({ detail }) => setState(`You see ${detail.title}.`)}
        onerror={({ detail }) => setState(`Your orders could not be opened: ${detail.requestId ?? detail.code}`)}
      >
        <p>Opening your orders…</p>
      </pat-embed>
    </>
  );
}

function Portal() {
  const [dark, setDark] = useState(false);
  const [shown, setShown] = useState(true);
  return (
    <>
      <h1>Portal</h1>
      <p>
        <label><input type="checkbox" checked={shown} onChange={() => setShown(!shown)} /> Show orders</label>{" "}
        <label><input type="checkbox" checked={dark} onChange={() => setDark(!dark)} /> Dark</label>
      </p>
      {shown && <Orders dark={dark} />}
    </>
  );
}

createRoot(document.getElementById("root")!).render(<StrictMode><Portal /></StrictMode>);
