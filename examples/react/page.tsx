// A page in React 19. <pat-embed> is a plain element: attributes in, events out.
import { StrictMode, useState, type HTMLAttributes } from "react";
import { createRoot } from "react-dom/client";
import type { FrameEvents, PatEmbedAttributes } from "./pat-embed";

type Listener<Name extends keyof FrameEvents> = (event: CustomEvent<FrameEvents[Name]>) => void;
declare module "react" {
  namespace JSX {
    interface IntrinsicElements {
      "pat-embed": HTMLAttributes<HTMLElement> & PatEmbedAttributes & {
        onloaded?: Listener<"loaded">;
        onerror?: Listener<"error">;
      };
    }
  }
}

function Orders({ dark }: { dark: boolean }) {
  const [state, setState] = useState("Opening your orders…");
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
      />
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
