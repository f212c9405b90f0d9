/**
 * Types of /embed.js and /embed.mjs. Keep a copy in your project:
 *
 *   curl -o src/pat-embed.d.ts https://embed.example/embed.d.ts
 *
 * `import type { Frame } from "./pat-embed"` then adds the types, the global `PatEmbed`, and `<pat-embed>` for JSX in
 * React 18 and 19, for Vue, and for libraries with a global `JSX`. Vue also needs `isCustomElement` in its settings.
 */

/** The reason for a token request. */
export type TokenReason = "initial" | "expiring" | "expired" | "visible" | "reload";

/** `auto` uses the theme of the viewer's system. */
export type Theme = "light" | "dark" | "auto";

/** The mint's answer to your back end, unchanged. */
export interface Minted {
  /** The frame's address, with its token. */
  redirectUrl: string;
  personalAccessToken?: string;
  tokenId?: string;
  /** How long the token opens frames, in seconds. */
  expiresIn?: number;
  /** How long a session lasts, in seconds. */
  sessionExpiresIn?: number;
  /** Set if your back end asked for a single-use token. Each frame then needs its own mint. */
  singleUse?: boolean;
}

export interface TokenRequest {
  /** The slug, as in the options. */
  app?: string;
  workspace?: string;
  reason: TokenReason;
  /** Aborted when the token is no longer needed. */
  signal: AbortSignal;
}

/** The source of tokens: one of the two. */
export type TokenSource =
  /** Your back end mints. It gets a POST with your site's credentials and `{"app": …, "reason": …}`. */
  | { tokenUrl: string; fetchToken?: undefined }
  /**
   * The same in code. Frames of one app with the same function share a token. The script tries again after an error.
   * It stops if the error has `retryable: false`, for example if the user is signed out. `retryAfter` is the delay in seconds.
   */
  | { fetchToken: (request: TokenRequest) => Minted | Promise<Minted>; tokenUrl?: undefined };

export type MountOptions = TokenSource & FrameOptions;

export interface FrameOptions {
  /** The app's slug, for your back end. */
  app?: string;
  /** Or the workspace's slug, for a token of all its apps. */
  workspace?: string;
  /** The frame's address: `redirectUrl` without the token. It loads while the token is fetched. */
  frame?: string;
  /** The app's page that opens first: a name, or a path of an app that runs elsewhere. Default: `index`. */
  page?: string;
  /** Its query: URL-encoded, or as names and values. */
  params?: string | Record<string, string>;
  /** Keep the page in this parameter of your page's address; `true` takes the app's slug. */
  syncUrl?: string | true;
  /** End the session when the frame is removed or your page is left. */
  endOnUnmount?: boolean;
  /** Time to wait for a token, in milliseconds. Default: 30,000. */
  tokenTimeout?: number;
  /** The frame takes the height of its content. */
  autoHeight?: boolean;
  theme?: Theme;
  /** A BCP 47 tag, for example `es` or `es-MX`. Default: your page's `<html lang>`, else the browser's. */
  locale?: string;
  /** The frame's title for screen readers. */
  title?: string;
  /** `lazy`: the script requests nothing until the frame is near the viewport. */
  loading?: "eager" | "lazy";
  /** Removes the frame when it is aborted, also after the frame has opened. */
  signal?: AbortSignal;
  /** Attributes of the iframe, instead of the defaults. */
  sandbox?: string;
  allow?: string;
  referrerPolicy?: ReferrerPolicy;
  /** Like `on("error", …)`, from the start. */
  onError?: (error: PatEmbedError) => void;
  /** Receives every event, including those before `mount` resolves. */
  onEvent?: (name: string, data: any) => void;
}

/** Codes of the service, of the frame, and of this script. */
export type PatEmbedErrorCode =
  // The token
  | "token_missing"
  | "token_invalid"
  | "token_expired"
  | "token_superseded"
  | "token_revoked"
  | "token_used"
  // The session
  | "session_invalid"
  | "session_expired"
  | "session_revoked"
  | "session_replaced"
  | "access_revoked"
  | "too_many_sessions"
  // The host page
  | "not_framed"
  | "origin_not_allowed"
  // A request
  | "invalid_payload"
  | "not_found"
  | "method_not_allowed"
  | "payload_too_large"
  | "unsupported_media_type"
  | "rate_limited"
  | "internal_error"
  | "unavailable"
  | "app_unavailable"
  // Without an answer of the service, or with an answer without a code. Causes: a failed token endpoint, a
  // timeout, the network, and a redirect of an app or a link out of it.
  | "fetch_token_failed"
  | "timeout"
  | "unreachable"
  | "redirect_refused"
  | "left_app"
  // An app that runs elsewhere
  | "cookies_blocked"
  | "upstream_unreachable"
  | "upstream_not_listed"
  // The browser lacks features that the script or the frames need.
  | "unsupported_browser"
  | "unknown";

export interface PatEmbedError extends Error {
  readonly code: PatEmbedErrorCode;
  /** Whether another attempt may help. False if the user has to act first. */
  readonly retryable: boolean;
  /** Quote it to the operator of the service. */
  readonly requestId: string | null;
  /** The HTTP status; 0 without an answer. */
  readonly status: number;
  /** In seconds. */
  readonly retryAfter: number | null;
}

export interface Named {
  id: string;
  slug: string;
  name: string;
}

/** The events of a frame, by name. */
export interface FrameEvents {
  /** The opening takes longer than 5 s: it waits for a token, or for the frame's page. */
  waiting: { for: "token" | "frame" };
  /** The frame has connected; its app has not loaded yet. */
  ready: Record<string, never>;
  /**
   * The app is ready. Without an app it is the workspace's launcher. `lacking` names the permissions that the app declares
   * and your `allow` lacks; only Chrome and Edge report them.
   */
  loaded: { app: Named | null; workspace: Named; title: string; lacking: string[] };
  /** In CSS pixels. */
  resize: { height: number };
  /** The app shows another page. `params` is its query, or null for the answer to a form. */
  navigate: { page: string; params: string | null; title: string };
  /** In seconds. */
  "session:expiring": { expiresIn: number };
  "session:renewed": { expiresIn: number };
  "session:expired": Record<string, never>;
  "session:revoked": { code: PatEmbedErrorCode };
  error: PatEmbedError;
}

export interface Frame {
  /** The element that contains the frame. */
  readonly element: Element;
  /** Null until the first token arrives. */
  readonly iframe: HTMLIFrameElement | null;
  /** Listen to events, also the app's own. Returns a function that removes the listener. */
  on<Name extends keyof FrameEvents>(name: Name, listener: (event: FrameEvents[Name]) => void): () => void;
  on(name: string, listener: (data: any) => void): () => void;
  off<Name extends keyof FrameEvents>(name: Name, listener: (event: FrameEvents[Name]) => void): void;
  off(name: string, listener: (data: any) => void): void;
  /** Send an event to the app. `postMessage` copies `data`. The names of `FrameEvents` are reserved. */
  send(name: string, data?: unknown): void;
  setTheme(theme: Theme): void;
  setLocale(locale: string): void;
  /** Show another page of the app. Its link chooses page and params. */
  navigate(page: string, params?: string | Record<string, string>): void;
  /** End the session on the service, and remove the frame. Rejects with a `PatEmbedError` if the service is unavailable. */
  end(): Promise<void>;
  /** Renew the session with a new token now. Rejects with a `PatEmbedError`. */
  refresh(): Promise<Frame>;
  /** Remove the frame. A pending `mount` rejects with an `AbortError`. */
  unmount(): void;
}

export interface PatEmbedApi {
  readonly version: string;
  readonly PatEmbedError: new (code: PatEmbedErrorCode, message: string, rest?: Partial<PatEmbedError>) => PatEmbedError;
  /** Show an app in the element, or in the selector's first match. Rejects with a `PatEmbedError`. */
  mount(target: string | Element, options: MountOptions): Promise<Frame>;
  /** End the sessions of all frames of this page, and remove the frames: for a sign-out. */
  endAll(): Promise<void>;
}

/** The attributes of `<pat-embed>`, as HTML and JSX write them. */
export interface PatEmbedAttributes {
  app?: string;
  workspace?: string;
  frame?: string;
  page?: string;
  params?: string;
  "sync-url"?: string;
  "end-on-unmount"?: boolean | "";
  "token-url"?: string;
  "token-timeout"?: string | number;
  "auto-height"?: boolean | "";
  theme?: Theme;
  locale?: string;
  title?: string;
  loading?: "eager" | "lazy";
  sandbox?: string;
  allow?: string;
  referrerpolicy?: ReferrerPolicy;
}

/** `<pat-embed>` dispatches each event of its frame as a `CustomEvent` of the same name. */
export interface HTMLPatEmbedElement extends HTMLElement {
  /** The frame, once it is mounted. */
  readonly frame: Frame | null;
  /** Instead of the attribute `token-url`. */
  fetchToken: ((request: TokenRequest) => Minted | Promise<Minted>) | undefined;
  addEventListener<Name extends keyof FrameEvents>(
    type: Name,
    listener: (this: HTMLPatEmbedElement, event: CustomEvent<FrameEvents[Name]>) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

/** `<pat-embed>` in JSX. React 19 adds a listener for each property `on…`. */
export type PatEmbedJSX = PatEmbedAttributes & {
  [Name in keyof FrameEvents as `on${Name}`]?: (event: CustomEvent<FrameEvents[Name]>) => void;
};

export const PatEmbed: PatEmbedApi;
export default PatEmbed;

declare global {
  var PatEmbed: PatEmbedApi;
  interface HTMLElementTagNameMap {
    "pat-embed": HTMLPatEmbedElement;
  }
  namespace JSX {
    interface IntrinsicElements {
      // @ts-ignore: your project may be without React
      "pat-embed": PatEmbedJSX & import("react").DetailedHTMLProps<import("react").HTMLAttributes<HTMLPatEmbedElement>, HTMLPatEmbedElement>;
    }
  }
}

// @ts-ignore: your project may be without React
declare module "react" {
  namespace JSX {
    interface IntrinsicElements {
      // @ts-ignore
      "pat-embed": PatEmbedJSX & DetailedHTMLProps<HTMLAttributes<HTMLPatEmbedElement>, HTMLPatEmbedElement>;
    }
  }
}

// @ts-ignore: your project may be without Vue
declare module "vue" {
  interface GlobalComponents {
    // @ts-ignore
    "pat-embed": import("vue").DefineComponent<PatEmbedAttributes>;
  }
}

// @ts-ignore: your project may be without Vue
declare module "vue/jsx-runtime" {
  namespace JSX {
    interface IntrinsicElements {
      // @ts-ignore
      "pat-embed": PatEmbedAttributes & import("vue").HTMLAttributes & import("vue").ReservedProps;
    }
  }
}
