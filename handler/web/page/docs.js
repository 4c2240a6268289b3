// @ts-check
// The page at /docs: Swagger UI over this server's own document.

/** @type {any} */
const { SwaggerUIBundle } = window;

SwaggerUIBundle({ url: "openapi.json", dom_id: "#api", deepLinking: true });
