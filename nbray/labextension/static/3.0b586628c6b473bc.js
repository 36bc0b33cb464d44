"use strict";(self.rspackChunknbray_lab=self.rspackChunknbray_lab||[]).push([[3],{24(r,a,n){var e=n(25),o=n.n(e),t=n(26),i=n.n(t),p=n(27),l=n(28),b=i()(o());b.i(p.A),b.i(l.A),b.push([r.id,`.nbray-dock { overflow: auto; background: var(--jp-layout-color1); }
`,""]),n.d(a,{},{A:b})},27(r,a,n){var e=n(25),o=n.n(e),t=n(26),i=(n.n(t))()(o());i.push([r.id,`/* Colours are JupyterLab's own where they exist, so that light, dark and other themes come by themselves. */
.nbray-card {
  --nbray-ink: var(--jp-ui-font-color1, var(--vscode-foreground, #1f1f1f));
  --nbray-muted: var(--jp-ui-font-color2, #5f6368);
  --nbray-line: var(--jp-border-color2, #c9c9c9);
  --nbray-soft: var(--jp-layout-color2, rgba(128, 128, 128, 0.12));
  --nbray-good: var(--jp-success-color0, #1b6e3c);
  --nbray-bad: var(--jp-error-color1, #c62828);
  --nbray-warn: var(--jp-warn-color0, #8a5200);
  --nbray-live: var(--jp-brand-color1, #1565c0);
  color: var(--nbray-ink);
  font-family: var(--jp-ui-font-family, system-ui, sans-serif);
  font-size: var(--jp-ui-font-size1, 13px);
  line-height: 1.45;
  border: 1px solid var(--nbray-line);
  border-left: 3px solid var(--nbray-live);
  border-radius: 3px;
  padding: 6px 10px;
  margin: 2px 0;
  max-width: 1100px;
}
.nbray-card[data-state="done"] { border-left-color: var(--nbray-good); }
.nbray-card[data-state="failed"] { border-left-color: var(--nbray-bad); }
.nbray-card[data-state="cancelled"], .nbray-card[data-state="timed out"] { border-left-color: var(--nbray-warn); }
.nbray-head { display: flex; flex-wrap: wrap; align-items: baseline; gap: 2px 10px; }
.nbray-sign { font-weight: 600; color: var(--nbray-live); white-space: nowrap; }
[data-state="done"] > .nbray-head .nbray-sign { color: var(--nbray-good); }
[data-state="failed"] > .nbray-head .nbray-sign { color: var(--nbray-bad); }
[data-state="cancelled"] > .nbray-head .nbray-sign, [data-state="timed out"] > .nbray-head .nbray-sign { color: var(--nbray-warn); }
.nbray-facts { flex: 1 1 20em; min-width: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.nbray-actions { display: flex; gap: 6px; }
.nbray-actions[hidden], .nbray-card [hidden] { display: none; }
.nbray-button {
  font: inherit; font-size: 12px; color: var(--nbray-ink); background: transparent; cursor: pointer;
  border: 1px solid var(--nbray-line); border-radius: 3px; padding: 1px 8px; white-space: nowrap;
}
.nbray-button:hover:not(:disabled) { background: var(--nbray-soft); }
.nbray-button:disabled { color: var(--nbray-muted); cursor: default; }
.nbray-card :focus-visible { outline: 2px solid var(--nbray-live); outline-offset: 1px; }
.nbray-bar { display: flex; height: 8px; margin: 5px 0 3px; background: var(--nbray-soft); border-radius: 2px; overflow: hidden; }
.nbray-bar > span { flex: none; min-width: 1px; }
.nbray-bar > .nbray-done { background: var(--nbray-good); }
.nbray-bar > .nbray-failed { background: var(--nbray-bad); }
.nbray-bar > .nbray-cancelled { background: var(--nbray-warn); }
.nbray-bar > .nbray-running { background: repeating-linear-gradient(45deg, var(--nbray-live) 0 4px, transparent 4px 8px); }
.nbray-notice { color: var(--nbray-warn); }
.nbray-problem { color: var(--nbray-bad); }
.nbray-tabs { display: flex; flex-wrap: wrap; gap: 2px; margin-top: 3px; }
.nbray-tab {
  font: inherit; font-size: 12px; color: var(--nbray-muted); background: none; cursor: pointer;
  border: none; border-bottom: 2px solid transparent; padding: 2px 8px;
}
.nbray-tab:hover { color: var(--nbray-ink); }
.nbray-tab[aria-selected="true"] { color: var(--nbray-ink); border-bottom-color: var(--nbray-live); }
.nbray-tabpanel { border-top: 1px solid var(--nbray-line); padding: 8px 0 2px; min-height: 60px; max-height: 420px; overflow: auto; }
.nbray-card table { border-collapse: collapse; font-size: 12px; margin: 0; }
.nbray-card th, .nbray-card td { text-align: left; padding: 2px 14px 2px 0; vertical-align: top; font-variant-numeric: tabular-nums; background: none; }
.nbray-card td { max-width: 34em; overflow-wrap: anywhere; }
.nbray-objects td { overflow-wrap: break-word; }
.nbray-objects td:first-child, .nbray-objects td:nth-child(2) { overflow-wrap: anywhere; min-width: 7em; }
.nbray-objects th, .nbray-objects td:nth-child(3) { white-space: nowrap; }
.nbray-card th { color: var(--nbray-muted); font-weight: 500; border-bottom: 1px solid var(--nbray-line); }
.nbray-card h4 { margin: 10px 0 2px; font-size: 12px; font-weight: 500; color: var(--nbray-muted); }
.nbray-muted, .nbray-card p.nbray-muted { color: var(--nbray-muted); font-size: 12px; margin: 2px 0; }
.nbray-errors { margin: 0; padding-left: 18px; color: var(--nbray-bad); overflow-wrap: anywhere; }
.nbray-mark { display: inline-block; width: 9px; height: 9px; border-radius: 2px; margin-right: 5px; }
.nbray-tools { display: flex; flex-wrap: wrap; gap: 4px 6px; align-items: center; margin-bottom: 5px; }
.nbray-canvas { position: relative; }
.nbray-canvas canvas { display: block; width: 100%; touch-action: pan-y; cursor: crosshair; }
.nbray-tip {
  position: absolute; pointer-events: none; z-index: 2; max-width: 320px; font-size: 12px; padding: 2px 7px; border-radius: 3px;
  color: var(--jp-ui-inverse-font-color1, #fff); background: var(--jp-inverse-layout-color2, #333);
}
.nbray-legend { display: flex; flex-wrap: wrap; gap: 2px 12px; font-size: 12px; margin-top: 4px; }
.nbray-scroll { overflow: auto; max-height: 290px; }
.nbray-edge { fill: none; stroke: currentColor; opacity: 0.4; }
.nbray-submits { stroke-dasharray: 2 3; }
.nbray-node { cursor: pointer; }
.nbray-node[aria-pressed="true"] > rect:first-of-type { stroke: var(--nbray-live); stroke-width: 2; }
.nbray-cell { fill: var(--jp-layout-color1, transparent); stroke: var(--nbray-muted); }
.nbray-strong { font-weight: 600; }
.nbray-stale { color: var(--nbray-warn); fill: var(--nbray-warn); }
.nbray-output { font-size: 12px; max-height: 280px; }
.nbray-out { display: flex; gap: 8px; border-bottom: 1px solid var(--nbray-soft); }
.nbray-who { flex: none; width: 12em; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.nbray-card .nbray-out pre { margin: 0; padding: 0; background: none; color: inherit; font-family: var(--jp-code-font-family, monospace); font-size: 12px; white-space: pre-wrap; overflow-wrap: anywhere; }
.nbray-card .nbray-err pre { color: var(--nbray-warn); }
.nbray-card p.nbray-said { font-size: 12px; margin: 4px 0; }
.nbray-here { outline: 2px solid var(--jp-brand-color1, #1565c0); outline-offset: 2px; }
.nbray-task, .nbray-object { fill: var(--nbray-soft); stroke: var(--nbray-line); }
.nbray-object { stroke-dasharray: 3 2; }
.nbray-label { font-size: 11.5px; fill: currentColor; }
.nbray-sublabel { font-size: 10px; fill: var(--nbray-muted); }
.nbray-dim { opacity: 0.25; }
.nbray-hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.nbray-answer { font-weight: 600; }
.nbray-tools label { display: inline-flex; align-items: center; gap: 6px; font-size: 12px; margin-right: 12px; }
.nbray-tools input[type="range"] { width: 120px; flex: 0 1 auto; min-width: 50px; accent-color: var(--nbray-live); }
.nbray-value { min-width: 1.6em; font-variant-numeric: tabular-nums; }
.nbray-card table.nbray-plan, .nbray-panel table.nbray-plan { width: min(100%, 380px); }
.nbray-plan td { white-space: nowrap; }
.nbray-plan td:last-child { width: 100%; }
.nbray-length { height: 8px; margin-top: 5px; background: var(--nbray-live); opacity: 0.6; }
.nbray-chosen td { font-weight: 600; }
.nbray-chosen .nbray-length { opacity: 1; }
.nbray-cluster { container-type: inline-size; }
.nbray-cluster > .nbray-head .nbray-facts { font-weight: 600; }
.nbray-cluster h3 { font-size: 12px; font-weight: 600; margin: 0; flex: 1 1 14em; overflow-wrap: anywhere; }
.nbray-clusternode { border-top: 1px solid var(--nbray-line); margin-top: 8px; padding-top: 6px; }
.nbray-clusternode[data-state="dead"] h3 { color: var(--nbray-bad); }
.nbray-clusternode[data-state="late"] h3 { color: var(--nbray-warn); }
.nbray-clusternode summary { cursor: pointer; font-size: 12px; color: var(--nbray-muted); margin: 4px 0; }
.nbray-meters { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 210px), 1fr)); gap: 6px 16px; margin-top: 4px; }
.nbray-meterline { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 8px; font-size: 12px; font-variant-numeric: tabular-nums; }
.nbray-spark { display: block; width: 100%; height: 26px; background: var(--nbray-soft); }
.nbray-spark polyline { fill: none; stroke: var(--nbray-live); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.nbray-spark polygon { fill: var(--nbray-live); opacity: 0.15; }
.nbray-waiting { margin: 4px 0; padding-left: 18px; font-size: 12px; color: var(--nbray-warn); overflow-wrap: anywhere; }
.nbray-waiting:empty { display: none; }
.nbray-scale { display: inline-flex; gap: 4px; align-items: center; }
.nbray-scale input {
  width: 4.5em; font: inherit; font-size: 12px; color: inherit; background: var(--jp-layout-color0, transparent);
  border: 1px solid var(--nbray-line); border-radius: 2px; padding: 0 4px;
}
.nbray-workers { width: 100%; }
.nbray-workers .nbray-runs { width: 60%; }
.nbray-workers [data-state="idle"], .nbray-workers [data-state="starting"], .nbray-workers [data-state="ending"] { color: var(--nbray-muted); }
.nbray-stale .nbray-nodes { opacity: 0.6; }
@container (max-width: 420px) { .nbray-wide { display: none; } }
.nbray-flame { position: relative; margin: 4px 0; }
.nbray-frame {
  position: absolute; height: 17px; box-sizing: border-box; text-indent: 3px; overflow: hidden; white-space: nowrap; text-overflow: ellipsis;
  font-family: var(--jp-code-font-family, ui-monospace, Menlo, Consolas, monospace); font-size: 11px; line-height: 17px;
  color: #1f1f1f; border-right: 1px solid var(--jp-layout-color0, #fff); cursor: pointer;
}
.nbray-frame:hover { filter: brightness(0.9); }
.nbray-frame:focus-visible { z-index: 1; outline-offset: -2px; outline-color: #1f1f1f; }
.nbray-tall { max-height: 420px; overflow: auto; }
.nbray-sign:empty { display: none; }
.nbray-workerlist + .nbray-button { margin-top: 6px; }
.nbray-meter { display: flex; flex-direction: column; }
.nbray-meter .nbray-spark { margin-top: auto; }
`,""]),n.d(a,{},{A:i})},28(r,a,n){var e=n(25),o=n.n(e),t=n(26),i=(n.n(t))()(o());i.push([r.id,`/* Clusters: in JupyterLab's side bar, and as a page of its own. Colours are JupyterLab's where they exist; page.css has the page's. */
.nbray-panel {
  --nbray-ink: var(--jp-ui-font-color1, #1f1f1f);
  --nbray-muted: var(--jp-ui-font-color2, #5f6368);
  --nbray-line: var(--jp-border-color2, #c9c9c9);
  --nbray-soft: var(--jp-layout-color2, rgba(128, 128, 128, 0.12));
  --nbray-bad: var(--jp-error-color1, #c62828);
  --nbray-warn: var(--jp-warn-color0, #8a5200);
  --nbray-live: var(--jp-brand-color1, #1565c0);
  color: var(--nbray-ink); font-family: var(--jp-ui-font-family, system-ui, sans-serif); font-size: var(--jp-ui-font-size1, 13px); line-height: 1.45;
}
.nbray-panel { container-type: inline-size; background: var(--jp-layout-color1, #fff); }
.nbray-inside { padding: 8px 12px; }
.nbray-panel [hidden] { display: none; }
.nbray-panel h2 { font-size: 13px; font-weight: 600; margin: 4px 0 6px; }
.nbray-panel h3 { font-size: 12px; font-weight: 600; margin: 0; overflow-wrap: anywhere; flex: 1 1 auto; }
.nbray-panel p, .nbray-panel ul { margin: 3px 0; }
.nbray-panel ul { padding-left: 16px; }
.nbray-panel li { overflow-wrap: anywhere; }
.nbray-panel :focus-visible { outline: 2px solid var(--nbray-live); outline-offset: 1px; }
.nbray-row { display: flex; flex-wrap: wrap; gap: 4px 8px; align-items: center; margin: 4px 0; }
.nbray-list { display: flex; flex-wrap: wrap; gap: 4px 6px; margin: 4px 0; }
.nbray-panel label { color: var(--nbray-muted); font-size: 12px; white-space: nowrap; }
.nbray-panel input { width: 4.5em; font: inherit; color: var(--nbray-ink); background: var(--jp-layout-color0, #fff); border: 1px solid var(--nbray-line); border-radius: 3px; padding: 1px 4px; }
.nbray-panel .nbray-button {
  font: inherit; font-size: 12px; color: var(--nbray-ink); background: var(--nbray-soft); border: 1px solid var(--nbray-line); border-radius: 3px;
  padding: 2px 8px; cursor: pointer; text-align: left; white-space: normal; overflow-wrap: anywhere;
}
.nbray-panel .nbray-button:hover:not([aria-disabled="true"]) { border-color: var(--nbray-live); }
.nbray-panel .nbray-button[aria-disabled="true"] { color: var(--nbray-muted); cursor: default; }
.nbray-panel select { font: inherit; max-width: min(22em, 75cqi); color: var(--nbray-ink); background: var(--jp-layout-color0, #fff); border: 1px solid var(--nbray-line); border-radius: 3px; padding: 1px 2px; }
.nbray-panel .nbray-button[aria-pressed="true"] { border-color: var(--nbray-live); box-shadow: inset 3px 0 0 var(--nbray-live); font-weight: 600; }
.nbray-steering { justify-content: space-between; }
.nbray-panel .nbray-muted { color: var(--nbray-muted); font-size: 12px; }
.nbray-panel .nbray-problem { color: var(--nbray-bad); overflow-wrap: anywhere; }
.nbray-panel .nbray-tabs { display: flex; flex-wrap: wrap; gap: 2px; margin: 8px 0 0; border-bottom: 1px solid var(--nbray-line); }
.nbray-panel .nbray-tab { font: inherit; font-size: 12px; color: var(--nbray-muted); background: none; border: none; border-bottom: 2px solid transparent; padding: 3px 7px; cursor: pointer; }
.nbray-panel .nbray-tab:hover { color: var(--nbray-ink); }
.nbray-panel .nbray-tab[aria-selected="true"] { color: var(--nbray-ink); border-bottom-color: var(--nbray-live); font-weight: 600; }
.nbray-body { padding: 8px 0; }
.nbray-panel .nbray-cluster { border: none; padding: 0; margin: 0; max-width: none; }
.nbray-panel .nbray-clusternode:first-child { border-top: none; margin-top: 0; }
@container (min-width: 900px) { .nbray-panel .nbray-nodes { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 0 32px; align-items: start; } }
@container (min-width: 900px) { .nbray-panel .nbray-nodes .nbray-clusternode:nth-child(2) { border-top: none; margin-top: 0; } }
.nbray-panel .nbray-scroll { position: relative; overflow: auto; max-height: none; }
.nbray-panel .nbray-lineage .nbray-scroll { max-height: 60vh; }
.nbray-panel .nbray-tools label { flex: 0 1 auto; min-width: 0; margin-right: 6px; }
.nbray-panel table { border-collapse: collapse; font-size: 12px; width: 100%; }
.nbray-panel th, .nbray-panel td { text-align: left; vertical-align: top; padding: 3px 12px 3px 0; border-bottom: 1px solid var(--nbray-line); }
.nbray-panel th { color: var(--nbray-muted); font-weight: 500; white-space: nowrap; }
.nbray-panel td { white-space: nowrap; font-variant-numeric: tabular-nums; }
.nbray-panel td.nbray-long, .nbray-panel td.nbray-runs { white-space: normal; min-width: 9em; max-width: 36em; overflow-wrap: anywhere; }
@container (max-width: 900px) { .nbray-panel .nbray-body .nbray-wide.nbray-id { display: none; } }
.nbray-panel td.nbray-id { font-family: var(--jp-code-font-family, ui-monospace, monospace); font-size: 11px; color: var(--nbray-muted); }
.nbray-panel .nbray-log { font-family: var(--jp-code-font-family, ui-monospace, monospace); font-size: 12px; line-height: 1.4; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 60vh; overflow: auto; margin: 6px 0; padding: 8px; background: var(--nbray-soft); border-radius: 3px; }
.nbray-panel .nbray-hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
`,""]),n.d(a,{},{A:i})},26(r){r.exports=function(r){var a=[];return a.toString=function(){return this.map(function(a){var n="",e=void 0!==a[5];return a[4]&&(n+="@supports (".concat(a[4],") {")),a[2]&&(n+="@media ".concat(a[2]," {")),e&&(n+="@layer".concat(a[5].length>0?" ".concat(a[5]):""," {")),n+=r(a),e&&(n+="}"),a[2]&&(n+="}"),a[4]&&(n+="}"),n}).join("")},a.i=function(r,n,e,o,t){"string"==typeof r&&(r=[[null,r,void 0]]);var i={};if(e)for(var p=0;p<this.length;p++){var l=this[p][0];null!=l&&(i[l]=!0)}for(var b=0;b<r.length;b++){var s=[].concat(r[b]);e&&i[s[0]]||(void 0!==t&&(void 0===s[5]||(s[1]="@layer".concat(s[5].length>0?" ".concat(s[5]):""," {").concat(s[1],"}")),s[5]=t),n&&(s[2]&&(s[1]="@media ".concat(s[2]," {").concat(s[1],"}")),s[2]=n),o&&(s[4]?(s[1]="@supports (".concat(s[4],") {").concat(s[1],"}"),s[4]=o):s[4]="".concat(o)),a.push(s))}},a}},25(r){r.exports=function(r){return r[1]}},18(r){var a=[];function n(r){for(var n=-1,e=0;e<a.length;e++)if(a[e].identifier===r){n=e;break}return n}function e(r,e){for(var o={},t=[],i=0;i<r.length;i++){var p=r[i],l=e.base?p[0]+e.base:p[0],b=o[l]||0,s="".concat(l," ").concat(b);o[l]=b+1;var d=n(s),y={css:p[1],media:p[2],sourceMap:p[3],supports:p[4],layer:p[5]};if(-1!==d)a[d].references++,a[d].updater(y);else{var c=function(r,a){var n=a.domAPI(a);return n.update(r),function(a){a?(a.css!==r.css||a.media!==r.media||a.sourceMap!==r.sourceMap||a.supports!==r.supports||a.layer!==r.layer)&&n.update(r=a):n.remove()}}(y,e);e.byIndex=i,a.splice(i,0,{identifier:s,updater:c,references:1})}t.push(s)}return t}r.exports=function(r,o){var t=e(r=r||[],o=o||{});return function(r){r=r||[];for(var i=0;i<t.length;i++){var p=n(t[i]);a[p].references--}for(var l=e(r,o),b=0;b<t.length;b++){var s=n(t[b]);0===a[s].references&&(a[s].updater(),a.splice(s,1))}t=l}}},20(r){var a={};r.exports=function(r,n){var e=function(r){if(void 0===a[r]){var n=document.querySelector(r);if(window.HTMLIFrameElement&&n instanceof window.HTMLIFrameElement)try{n=n.contentDocument.head}catch(r){n=null}a[r]=n}return a[r]}(r);if(!e)throw Error("Couldn't find a style target. This probably means that the value for the 'insert' parameter is invalid.");e.appendChild(n)}},22(r){r.exports=function(r){var a=document.createElement("style");return r.setAttributes(a,r.attributes),r.insert(a,r.options),a}},21(r,a,n){r.exports=function(r){var a=n.nc;a&&r.setAttribute("nonce",a)}},19(r){r.exports=function(r){if("u"<typeof document)return{update:function(){},remove:function(){}};var a=r.insertStyleElement(r);return{update:function(n){var e,o,t;e="",n.supports&&(e+="@supports (".concat(n.supports,") {")),n.media&&(e+="@media ".concat(n.media," {")),(o=void 0!==n.layer)&&(e+="@layer".concat(n.layer.length>0?" ".concat(n.layer):""," {")),e+=n.css,o&&(e+="}"),n.media&&(e+="}"),n.supports&&(e+="}"),(t=n.sourceMap)&&"u">typeof btoa&&(e+="\n/*# sourceMappingURL=data:application/json;base64,".concat(btoa(unescape(encodeURIComponent(JSON.stringify(t))))," */")),r.styleTagTransform(e,a,r.options)},remove:function(){var r;null===(r=a).parentNode||r.parentNode.removeChild(r)}}}},23(r){r.exports=function(r,a){if(a.styleSheet)a.styleSheet.cssText=r;else{for(;a.firstChild;)a.removeChild(a.firstChild);a.appendChild(document.createTextNode(r))}}},17(r,a,n){var e=n(18),o=n.n(e),t=n(19),i=n.n(t),p=n(20),l=n.n(p),b=n(21),s=n.n(b),d=n(22),y=n.n(d),c=n(23),f=n.n(c),u=n(24),x={};x.styleTagTransform=f(),x.setAttributes=s(),x.insert=l().bind(null,"head"),x.domAPI=i(),x.insertStyleElement=y(),o()(u.A,x),u.A&&u.A.locals&&u.A.locals}}]);